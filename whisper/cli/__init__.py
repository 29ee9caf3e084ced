"""The command `whisper`."""

from .main import cli as cli
