"""The HTTP/1.1 server of the API port: an ASGI server on trio, with a bound on whatever a client can make it hold.

```
bytes ─▶ framing (sans-IO: heads.py, chunked bodies) ─▶ exchange (one request, one ASGI call) ─▶ answers ─▶ bytes
         connection.py: one client, one request after the other        server.py: accepts, counts, stops
```

It speaks HTTP/1.1 and 1.0 and nothing else, and refuses what the ingest port refuses: both read heads with llhttp. It
parses no further than the request that is being answered, reads no more than that needs, and writes at the client's
pace. A client that reads too slowly, or leaves, ends its application's call by cancellation: what an answer holds is
given back by the `finally` of whoever took it.

Why not a server from elsewhere: docs/design.md, §8.
"""

from service.http.limits import HttpLimits
from service.http.server import HttpServer

__all__ = ["HttpLimits", "HttpServer"]
