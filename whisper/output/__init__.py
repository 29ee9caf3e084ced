"""Transcripts written as files."""
