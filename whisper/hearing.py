"""What a transcription asks of the model, in two ways: through the model's own forward, or through an engine.

The first is for whoever watches the model or has put parts of their own into it; see `fast_path.usable`. Both speak
in `work`'s terms, though the first needs nobody to answer. Knows no recording: windows come in, results go out.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from . import fast_path, timing
from .decoding import DecodingOptions, DecodingResult, DecodingTask, compute_dtype, decode, detect_language, is_rebuilt
from .engine import Engine, engine_for
from .runner import Audio
from .sampling import Shared
from .timing import find_alignment
from .tokenizer import get_tokenizer
from .torch_state import clean_state
from .work import Detect, Encode, Job

if TYPE_CHECKING:
    from .model import Whisper


class Hearing(Protocol):
    """One of the two ways; what stands for an encoded window is its own affair."""

    engine: Engine | None

    def encode(self, mel: Tensor) -> Generator[Job, Any, Any]:
        """Encode a full window, ``(n_mels, 3000)``, once for all that is done with it."""
        ...

    def detect(self, window: Any) -> Generator[Job, Any, dict[str, float]]:
        """Return how probable each language is."""
        ...

    def decode(self, window: Any, options: DecodingOptions) -> Generator[Job, Any, DecodingResult]:
        """Decode a window whose language is in the options."""
        ...

    def to_align(self, window: Any) -> dict[str, Any]:
        """Return what `timing.find_alignment` must know of a window."""
        ...


class Reference:
    """The model's own methods, looked up when called."""

    engine: Engine | None = None

    def __init__(self, model: Whisper, fp16: bool) -> None:
        self._model = model
        self._dtype = compute_dtype(fp16, model.device)

    def encode(self, mel: Tensor) -> Generator[Job, Any, Tensor]:
        """See `Hearing`; gives ``(n_audio_ctx, n_audio_state)``."""
        yield from ()
        mel = mel.to(self._model.device).to(self._dtype)
        with clean_state():
            features: Tensor = self._model.encoder(mel.unsqueeze(0))[0]
        return features

    def detect(self, window: Tensor) -> Generator[Job, Any, dict[str, float]]:
        """See `Hearing`."""
        yield from ()
        _, probs = self._model.detect_language(window)
        of_window: dict[str, float] = probs
        return of_window

    def decode(self, window: Tensor, options: DecodingOptions) -> Generator[Job, Any, DecodingResult]:
        """See `Hearing`."""
        yield from ()
        result: DecodingResult = self._model.decode(window, options)
        return result

    def to_align(self, window: Tensor) -> dict[str, Any]:
        """See `Hearing`."""
        return {"mel": window}


class Fast:
    """An engine, which others may use at the same time."""

    def __init__(self, model: Whisper, engine: Engine) -> None:
        self.engine: Engine | None = engine
        self._model = model

    def encode(self, mel: Tensor) -> Generator[Job, Any, Audio]:
        """See `Hearing`."""
        audio: Audio = yield Encode(mel.to(self._model.device))
        return audio

    def detect(self, window: Audio) -> Generator[Job, Any, dict[str, float]]:
        """See `Hearing`."""
        tokenizer = get_tokenizer(self._model.is_multilingual, num_languages=self._model.num_languages)
        probs = yield Detect(window, tokenizer.sot, tokenizer.all_language_tokens)
        return dict(zip(tokenizer.all_language_codes, probs, strict=True))

    def decode(self, window: Audio, options: DecodingOptions) -> Generator[Job, Any, DecodingResult]:
        """See `Hearing`."""
        task = DecodingTask(self._model, options)
        sampling = yield task.sampling(window)
        return task.result(sampling, options.language or "en")

    def to_align(self, window: Audio) -> dict[str, Any]:
        """See `Hearing`."""
        if timing.find_alignment is not find_alignment:
            return {"mel": window.features}
        assert self.engine is not None
        return {"mel": window.features, "runner": Shared(self.engine.runner), "audio": window}


def hearing_for(model: Whisper, fp16: bool) -> Hearing:
    """Return the fast way where it gives what the model's own methods would, and nobody would see a difference."""
    bound = type(model).decode is decode and type(model).detect_language is detect_language
    if not bound or is_rebuilt() or not fast_path.usable(model):
        return Reference(model, fp16)
    return Fast(model, engine_for(model, fp16))
