"""Pictures of ten pages for docs/pages.md, taken in Chromium of a service that runs, with video of a real ffmpeg."""
