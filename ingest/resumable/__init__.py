"""Resumable uploads: what comes of one is stored part by part, and becomes a chunk, or chunks, when it is complete.

`requests` does what a request about an upload asks for. `parts` is what is stored of one. One that is larger than
a chunk is cut (`cutting` chooses the places, `cut_ts` and `cut_mp4` read the media; all pure), and `finishing` stores
its chunks, all of them or none. `not_taken` remembers the uploads that can't be cut.
"""
