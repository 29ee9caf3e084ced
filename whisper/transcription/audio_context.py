"""The audio context: how much the encoder reads of a window with less than 30 s of sound.

openai-whisper pads every window to 30 s, as the models were trained, so that 5 s of sound cost as much as 30. A model
that finds less padding reads worse, and some of its texts run away into loops and inventions. So in a short context
the padding is there to its end, but thinned out: the encoder reads the sound and a `MARGIN`, and of the positions
behind it one for many, which counts as often (`runtime.interface.PADDING_STRIDE`). A text that shows signs of running
away all the same is decoded again on all 30 s, before any temperature fallback. Measured by
``benchmarks/audio_context.py``.

Only the encoder's input is shorter: positions, timestamps and prompts are what they are in 30 s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..audio import pad_or_trim
from ..device.lazy_torch import Tensor, torch
from ..errors import OptionError
from ..spans import FRAMES_PER_SECOND, N_FRAMES, TOKENS_PER_SECOND
from ..speech.rates import MAX_TEXT_TOKENS_PER_SECOND
from .segments import is_improbable, is_repetitive, is_silence

if TYPE_CHECKING:
    from ..decoding import DecodingOptions, DecodingResult
    from ..options.transcription import TranscribeOptions
    from ..speech.features import Features
    from .backends import Backend

MARGIN = 50  # frames of padding after the sound, at least
MULTIPLE = 120  # frames: few lengths, as a GPU encodes windows of one length together; of `PADDING_STRIDE`, too
NEARLY_ALL = 2700  # frames: from here on the rest is not worth a difference
FAST_TYPES = ("int8", "bfloat16")  # in which "auto" is short, on a CPU
SPARE_TOKENS = 24  # beside those of the speaking rate: timestamps, and for very short windows
REACH = 2.0  # seconds behind the end of the sound that a timestamp may lie; in 30 s, 2 % of texts reach further
UNSAID = 3.0  # seconds of sound behind the last timestamp
RESIDUE = 100  # frames: a shorter window, such as what is left after the last word, is believed to be silent


@dataclass(frozen=True)
class AudioContext:
    """How much of the windows of a recording the encoder reads.

    Attributes
    ----------
    follows_sound
        Whether that is as long as the sound; else it is 30 s.
    margin
        Frames of padding after the sound, at least.
    """

    follows_sound: bool = False
    margin: int = MARGIN

    def n_frames(self, size: int) -> int:
        """Return how many frames the encoder reads of a window with `size` frames of sound."""
        if not self.follows_sound:
            return N_FRAMES
        n_frames = -(-(size + self.margin) // MULTIPLE) * MULTIPLE
        return n_frames if n_frames < NEARLY_ALL else N_FRAMES

    def is_short(self, size: int) -> bool:
        """Whether that is less than 30 s."""
        return self.n_frames(size) < N_FRAMES

    def mel(self, features: Features, seek: int, size: int) -> Tensor:
        """Return a window for the encoder, ``(n_mels, n_frames)``: `size` frames of sound, and padding."""
        mel: Tensor = pad_or_trim(features.window(seek, size), self.n_frames(size))
        return mel

    def mel_for_detection(self, features: Features, seek: int) -> Tensor:
        """Return the same for language detection, where openai-whisper pads with digital silence and not with zeros.

        It matters: behind zeros every tenth short recording is taken for one in another language.
        """
        size = max(0, min(N_FRAMES, features.n_frames - seek))
        mel: Tensor = features.window(seek, self.n_frames(size))
        return mel


WHOLE = AudioContext()  # 30 s, whatever the sound


def choose(option: str, backend: Backend, device: torch.device) -> AudioContext:
    """Return the audio context that the option ``audio_context`` means on a backend.

    Raises
    ------
    OptionError
        A short one is asked for, and the model's own modules run, which take 30 s alone.
    """
    if option == "short" and not backend.takes_short_windows:
        raise OptionError(
            "audio_context='short' needs the fast path, which hooks on the model or replaced parts of it switch off; "
            "remove them, or give audio_context='full'"
        )
    is_safe = backend.takes_short_windows and backend.compute_type in FAST_TYPES and device.type == "cpu"
    return AudioContext(option == "short" or (option == "auto" and is_safe))


def most_tokens(size: int) -> int:
    """Return how many tokens can be said in `size` frames."""
    return int(MAX_TEXT_TOKENS_PER_SECOND * size / FRAMES_PER_SECOND) + SPARE_TOKENS


def bounded(decoding: DecodingOptions, size: int) -> DecodingOptions:
    """Return options that end a runaway text early; of any other text they change nothing.

    Parameters
    ----------
    decoding
        Of the window.
    size
        Its frames of sound.
    """
    if decoding.prefix is not None:  # of which `sample_len` decides how much is read
        return decoding
    n_tokens = most_tokens(size)
    return replace(decoding, stop_loops=True, sample_len=min(n_tokens, decoding.sample_len or n_tokens))


def is_doubtful(decoded: DecodingResult, size: int, options: TranscribeOptions, timestamp_begin: int) -> bool:
    """Whether a text that was read in a short context shows a sign that it ran away.

    Parameters
    ----------
    decoded
        The text.
    size
        Frames of sound.
    options
        With the thresholds. A text that fails them is taken for silence only in a `RESIDUE`.
    timestamp_begin
        The id of ``<|0.00|>``.
    """
    if size < RESIDUE and is_silence(decoded, options):
        return False
    if decoded.is_loop or is_repetitive(decoded.compression_ratio, options) or is_improbable(decoded, options):
        return True
    if len(decoded.tokens) >= most_tokens(size):
        return True
    times = [token - timestamp_begin for token in decoded.tokens if token >= timestamp_begin]
    behind = times[-1] / TOKENS_PER_SECOND - size / FRAMES_PER_SECOND if times else 0.0
    return not -UNSAID <= behind <= REACH
