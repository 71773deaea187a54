"""Media jobs in processes of their own: chunks to fragmented MP4, and pictures. Media is hostile input, and FFmpeg's
libraries are C: whatever a chunk does to them, it does to a child process, and that job alone fails.

`remuxer` is the API process's side: it owns the children, bounds them and replaces them. `child` is their program,
`hardening` what it gives up before it looks at media, `jobs` and `pictures` what it does with PyAV, `boxes` how MP4 is
cut and patched, `messages` what both sides say. Nothing but the child imports PyAV: nobody else takes the time
for it to load, nor its memory.
"""
