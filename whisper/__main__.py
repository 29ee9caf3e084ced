"""``python -m whisper``: the same as the command ``whisper``."""

import sys

from .cli.main import cli

if __name__ == "__main__":
    sys.exit(cli())
