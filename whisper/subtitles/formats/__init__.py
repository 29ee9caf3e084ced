"""The formats of subtitles and transcripts, each written and, where it has text and times, read."""
