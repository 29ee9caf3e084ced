"""A refresh: what the model hears in the sound of an item so far, as words with times.

The encoder reads the sound and little more, which makes a refresh several times cheaper than a window of 30 s. The text
that is stable already is given to the decoder, so that each hypothesis continues it. Decides nothing about words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..audio import log_mel_spectrogram, pad_or_trim
from ..engine.priorities import Claim, Priority
from ..options.language_names import code_of
from ..options.transcription import DecodingOptions
from ..spans import FRAMES_PER_SECOND, HOP_LENGTH, N_FRAMES
from ..timing import find_alignment
from ..tokenizer import Tokenizer, get_tokenizer
from ..transcription.audio_context import AudioContext, most_tokens
from ..transcription.backends import backend_for
from ..utils import compression_ratio

if TYPE_CHECKING:
    from ..model import Whisper
    from .options import LiveOptions

Samples = np.ndarray[Any, np.dtype[np.float32]]

MARGIN = 300  # frames of padding: a wrong text is replaced by the next, so that less will do than for a transcript
REPETITIVE = 2.4  # compression ratio
IMPROBABLE = -1.0  # mean log-probability of a token
NO_SPEECH = 0.6


@dataclass(frozen=True)
class HeardWord:
    """A word, or a mark of its own, with the space before it.

    Attributes
    ----------
    text
        As it is written.
    tokens
        Its ids.
    end
        Seconds from the start of the item to the end of the word.
    probability
        Mean of its tokens' probabilities.
    """

    text: str
    tokens: tuple[int, ...]
    end: float
    probability: float = 1.0


@dataclass(frozen=True)
class Hypothesis:
    """All words of an item so far, those that were known first; its language."""

    words: tuple[HeardWord, ...]
    language: str


class Refresher:
    """Refreshes for the items of one session.

    Parameters
    ----------
    model
        A Whisper model.
    key
        For whom the refreshes are; sessions of one key share what they get.
    margin
        Frames of padding behind the sound.
    """

    def __init__(self, model: Whisper, key: str = "", margin: int = MARGIN) -> None:
        self._model, self._claim = model, Claim(Priority.LIVE, key)
        self._margin = margin

    def refresh(
        self,
        samples: Samples,
        options: LiveOptions,
        known: Sequence[int] = (),
        language: str | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Hypothesis | None:
        """Read the sound of an item.

        Parameters
        ----------
        samples
            Of the item so far, float32 at 16 kHz, up to 30 s.
        options
            Of the session.
        known
            Token ids that its text begins with.
        language
            That of the item, where it is known.
        stop
            Polled between two steps of the model.

        Returns
        -------
        Hypothesis or None
            None where the text shows a sign of being invented, or where no more fits behind what is known.

        Raises
        ------
        CancelledError
            `stop` returned True.
        """
        backend = backend_for(self._model, fp16=True)
        coroutine = self._read(backend, samples, options, tuple(known), language)
        request = backend.submit(coroutine, caller=backend.caller(stop), claim=self._claim)
        hypothesis: Hypothesis | None = request.result()
        return hypothesis

    async def _read(
        self, backend: Any, samples: Samples, options: LiveOptions, known: tuple[int, ...], language: str | None
    ) -> Hypothesis | None:
        room = self._model.dims.n_text_ctx // 2 - len(known)
        if room <= 0:
            return None
        size = min(len(samples) // HOP_LENGTH, N_FRAMES)
        mel = log_mel_spectrogram(torch.from_numpy(samples), self._model.dims.n_mels)[:, :size]
        context = AudioContext(backend.takes_short_windows, self._margin)
        window = await backend.encode(pad_or_trim(mel, context.n_frames(size)))
        language = language or await self._language(backend, window, options)
        tokenizer = self._tokenizer(options.task, language)
        decoded = await backend.decode(window, self._decoding(options, language, known, min(most_tokens(size), room)))
        if self._is_doubtful(decoded, size):
            return None
        text = [*known, *(token for token in decoded.tokens if token < tokenizer.eot)]
        if not text:
            return Hypothesis((), language)
        inputs = await backend.alignment_inputs(window, tokenizer, text)
        found = find_alignment(self._model, tokenizer, text, num_frames=size, **inputs)
        words = (HeardWord(word.word, tuple(word.tokens), word.end, word.probability) for word in found)
        return Hypothesis(tuple(words), language)

    async def _language(self, backend: Any, window: Any, options: LiveOptions) -> str:
        if not self._model.is_multilingual:
            return "en"
        if (given := code_of(options.language)) is not None:
            return given
        probs: dict[str, float] = await backend.detect(window)
        return max(probs, key=lambda code: probs[code])

    def _decoding(self, options: LiveOptions, language: str, known: tuple[int, ...], most: int) -> DecodingOptions:
        return DecodingOptions(
            task=options.task,
            language=language,
            prompt=options.initial_prompt,
            prefix=list(known) or None,
            hotwords=options.hotwords,
            hotword_boost=options.hotword_boost,
            without_timestamps=True,
            stop_loops=True,
            sample_len=most,
        )

    def _is_doubtful(self, decoded: Any, size: int) -> bool:
        """Whether a text is a loop, too long for its sound, or improbable and perhaps no speech."""
        if decoded.is_loop or compression_ratio(decoded.text or " ") > REPETITIVE:
            return True
        if len(decoded.tokens) >= most_tokens(size):
            return True
        return bool(decoded.avg_logprob < IMPROBABLE and decoded.no_speech_prob > NO_SPEECH)

    def _tokenizer(self, task: str, language: str) -> Tokenizer:
        multilingual, n_languages = self._model.is_multilingual, self._model.num_languages
        return get_tokenizer(multilingual, num_languages=n_languages, language=language, task=task)


def seconds_of(samples: Samples) -> float:
    """Return the duration that a refresh hears of samples."""
    return len(samples) // HOP_LENGTH / FRAMES_PER_SECOND
