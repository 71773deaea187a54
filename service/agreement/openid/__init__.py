"""Log-in from elsewhere by OpenID Connect: code flow with PKCE, state and nonce (OpenID Connect Core 1.0, RFC 9700).

`settings` reads which providers there are, `provider` asks one of them, `tokens` checks what it says of a person,
`sealed` has what a client holds between two requests. What an account comes to have of it is
`service.agreement.elsewhere`.
"""
