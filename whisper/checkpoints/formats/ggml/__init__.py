"""The files of whisper.cpp: read and written."""
