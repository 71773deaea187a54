"""Real processes through the installed command, and a real ffmpeg."""
