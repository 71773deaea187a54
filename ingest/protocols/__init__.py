"""What a device may speak: one file for each protocol, and `table`, which names them all.

A protocol stands between framing and admission. It says what a target means (`Protocol.route`), whether the body may
come that a head announces, and how much of it (`Protocol.admit`), and what is answered when its chunk was committed or
lost (`Protocol.answer`). Token, entitlement and times are asked by `ingest.admission`, in the same way for all.
"""
