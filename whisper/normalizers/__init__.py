"""Text normalisation for scoring: makes two transcripts comparable that differ only in how they are written.

Not for readers: what comes out has lost its case, its punctuation and part of its words.
"""

from .basic import BasicTextNormalizer as BasicTextNormalizer
from .english import EnglishTextNormalizer as EnglishTextNormalizer
