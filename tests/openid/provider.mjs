// A provider on a port of its own: node provider.mjs PORT REDIRECT_URI. Whoever logs in is whom the log-in names.
import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';

const [port, redirectUri] = process.argv.slice(2);
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const jwk = { ...privateKey.export({ format: 'jwk' }), kid: 'first', use: 'sig', alg: 'RS256' };
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{ client_id: 'clipkeep', client_secret: 'secret-of-clipkeep', redirect_uris: [redirectUri] }],
  jwks: { keys: [jwk] },
  cookies: { keys: ['of a test'] },
  claims: { openid: ['sub'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: false,
  features: { devInteractions: { enabled: true } },
  async findAccount(ctx, id) {
    return { accountId: id, async claims() { return { sub: id, email: `${id}@example.org`, email_verified: true }; } };
  },
});
provider.listen(Number(port), '127.0.0.1', () => console.log('ready'));
