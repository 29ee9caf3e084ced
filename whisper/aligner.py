"""Where each word of a known text is said: forced alignment for the training data, by pocketsphinx.

pocketsphinx carries its English acoustic model and dictionary in the package, so nothing is downloaded. English only;
a text with a word that the dictionary lacks is refused as a whole, for half an alignment teaches wrong times.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np

from .audio import SAMPLE_RATE
from .errors import TrainingError

FRAMES_PER_SECOND = 100  # of pocketsphinx's segmentation
EXTRA_WORDS = {"snowboy": "S N OW B OY"}  # words of the training texts that the dictionary lacks


class Aligner:
    """Finds the times of the words of an English text in its recording."""

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError:
            raise TrainingError("word times need pocketsphinx: pip install 'sotto[train]'") from None
        self._decoder: Any = Decoder(lm=None, loglevel="FATAL", samprate=SAMPLE_RATE)
        for word, phones in EXTRA_WORDS.items():
            if self._decoder.lookup_word(word) is None:
                self._decoder.add_word(word, phones, True)

    def unknown(self, text: str) -> list[str]:
        """The words of `text` that the dictionary lacks."""
        return [word for word in _words(text) if self._decoder.lookup_word(word) is None]

    def align(self, samples: np.ndarray, text: str) -> list[tuple[int, int]] | None:
        """Start and end of each word of `text` in frames of 10 ms, or None where they cannot be had.

        Parameters
        ----------
        samples
            16 kHz mono sound, float32, ``(n_samples,)``.
        text
            Lower-case words between spaces, as `datasets.reduce_text` gives them.
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
        except RuntimeError:  # the text does not fit the sound; the decoder is left in the middle of it
            self.__init__()  # type: ignore[misc]
            return None
        spoken = [(word, start, end) for word, start, end in found if word and word[0] not in "<["]
        if [word for word, _, _ in spoken] != words:
            return None
        return [(start, end) for _, start, end in spoken]


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFD", text)
    return "".join(c for c in plain if not unicodedata.combining(c)).split()
