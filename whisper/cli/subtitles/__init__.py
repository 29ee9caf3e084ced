"""The commands for subtitles and transcripts as files: made of a known text, checked, converted, put in videos."""
