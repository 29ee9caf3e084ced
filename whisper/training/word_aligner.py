"""Forced alignment of words for the training data, by pocketsphinx.

pocketsphinx has its English acoustic model and dictionary in the package, so nothing is downloaded.
English only. A text with a word that is not in the dictionary is not aligned at all, because a
partial alignment has wrong times.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np

from ..errors import MissingDependencyError
from ..spans import SAMPLE_RATE

EXTRA_WORDS = {"snowboy": "S N OW B OY"}  # words of the training data that are not in the dictionary


class WordAligner:
    """Finds the times of the words of an English text in its recording.

    Raises
    ------
    MissingDependencyError
        ``pocketsphinx`` is not installed.
    """

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError:
            raise MissingDependencyError("word times need pocketsphinx", extra="train") from None
        self._decoder: Any = Decoder(lm=None, loglevel="FATAL", samprate=SAMPLE_RATE)
        for word, phones in EXTRA_WORDS.items():
            if self._decoder.lookup_word(word) is None:
                self._decoder.add_word(word, phones, True)

    def unknown(self, text: str) -> list[str]:
        """The words of `text` that are not in the dictionary."""
        return [word for word in _words(text) if self._decoder.lookup_word(word) is None]

    def align(self, samples: np.ndarray, text: str) -> list[tuple[int, int]] | None:
        """Start and end of each word of `text` in frames of 10 ms, or None if it cannot be aligned.

        Parameters
        ----------
        samples
            16 kHz mono audio, float32, ``(n_samples,)``.
        text
            Lower-case words separated by spaces, as from `targets.reduce_text`.
        """
        words = _words(text)
        if not words or self.unknown(text) or len(samples) < SAMPLE_RATE // 10:
            return None
        pcm = (np.clip(samples, -1.0, 1.0) * 32767).astype("<i2").tobytes()
        decoder = self._decoder
        try:
            decoder.set_align_text(" ".join(words))
            decoder.start_utt()
            decoder.process_raw(pcm, full_utt=True)
            decoder.end_utt()
            found = [(seg.word.split("(")[0], seg.start_frame, seg.end_frame + 1) for seg in decoder.seg() or ()]
        except RuntimeError:  # the text does not match the audio; the decoder's state is undefined now
            self.__init__()  # type: ignore[misc]
            return None
        aligned = [(word, start, end) for word, start, end in found if word and word[0] not in "<["]
        if [word for word, _, _ in aligned] != words:
            return None
        return [(start, end) for _, start, end in aligned]


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFD", text)
    return "".join(c for c in plain if not unicodedata.combining(c)).split()
