"""`clipkeep demo`: the main job, end to end, with real processes and real video.

- `wire`: the least HTTP/1.1 client that a camera needs.
- `simulator`: a device that uploads, tries again, and remembers what was acknowledged.
- `viewer`: a person's side: playlists and chunks with a viewer token.
- `cameras`: ffmpeg: pictures, footage, live push, hashes of decoded frames.
- `processes`: the command line and the service, as children that are always ended.
- `show`: what the person sees: acts, progress, the table.
- `stage`: what the acts share.
- `story`, `endings`, `crash`: the acts.
"""
