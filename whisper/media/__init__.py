"""Recordings of any container and codec, decoded."""
