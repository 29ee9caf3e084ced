"""A known text placed on its recording: words with times."""

from .align import align as align
