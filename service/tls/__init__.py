"""TLS of both ports: which certificates there are, and the contexts that handshakes begin with."""
