"""Model backends of a transcription: the model's own methods, or the engine of the fast path.

The reference backend is for models with hooks or replaced parts; see `fast_path.usable`. Both
backends are generators of `work`'s jobs, although the reference backend yields none. Knows no
recording: windows in, results out.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from .. import compat
from ..decoding import (
    DecodingOptions,
    DecodingResult,
    DecodingTask,
    compute_dtype,
)
from ..device.torch_state import clean_state
from ..engine.engine import Engine, engine_for
from ..engine.operations import Detect, Encode, Job
from ..runtime import select
from ..runtime.interface import Audio
from ..sampling.window_sampling import Shared
from ..tokenizer import get_tokenizer

if TYPE_CHECKING:
    from ..model import Whisper


class Backend(Protocol):
    """A way to run the model; the type of an encoded window is its own."""

    engine: Engine | None

    def encode(self, mel: Tensor) -> Generator[Job, Any, Any]:
        """Encode a full window, ``(n_mels, 3000)``, once for detection, decoding and alignment."""
        ...

    def detect(self, window: Any) -> Generator[Job, Any, dict[str, float]]:
        """Return the probability of each language."""
        ...

    def decode(self, window: Any, options: DecodingOptions) -> Generator[Job, Any, DecodingResult]:
        """Decode a window; its language is in the options."""
        ...

    def alignment_inputs(self, window: Any) -> dict[str, Any]:
        """Return the arguments of `timing.find_alignment` that stand for a window."""
        ...


class ReferenceBackend:
    """The model's own methods, looked up when called."""

    engine: Engine | None = None

    def __init__(self, model: Whisper, fp16: bool) -> None:
        self._model = model
        self._dtype = compute_dtype(fp16, model.device)

    def encode(self, mel: Tensor) -> Generator[Job, Any, Tensor]:
        """See `Backend`; returns ``(n_audio_ctx, n_audio_state)``."""
        yield from ()
        mel = mel.to(self._model.device).to(self._dtype)
        with clean_state():
            features: Tensor = self._model.encoder(mel.unsqueeze(0))[0]
        return features

    def detect(self, window: Tensor) -> Generator[Job, Any, dict[str, float]]:
        """See `Backend`."""
        yield from ()
        _, probs = self._model.detect_language(window)
        language_probs: dict[str, float] = probs
        return language_probs

    def decode(self, window: Tensor, options: DecodingOptions) -> Generator[Job, Any, DecodingResult]:
        """See `Backend`."""
        yield from ()
        result: DecodingResult = self._model.decode(window, options)
        return result

    def alignment_inputs(self, window: Tensor) -> dict[str, Any]:
        """See `Backend`."""
        return {"mel": window}


class EngineBackend:
    """An engine, which other transcriptions use at the same time."""

    def __init__(self, model: Whisper, engine: Engine) -> None:
        self.engine: Engine | None = engine
        self._model = model

    def encode(self, mel: Tensor) -> Generator[Job, Any, Audio]:
        """See `Backend`."""
        audio: Audio = yield Encode(mel.to(self._model.device))
        return audio

    def detect(self, window: Audio) -> Generator[Job, Any, dict[str, float]]:
        """See `Backend`."""
        tokenizer = get_tokenizer(self._model.is_multilingual, num_languages=self._model.num_languages)
        probs = yield Detect(window, tokenizer.sot, tokenizer.all_language_tokens)
        return dict(zip(tokenizer.all_language_codes, probs, strict=True))

    def decode(self, window: Audio, options: DecodingOptions) -> Generator[Job, Any, DecodingResult]:
        """See `Backend`."""
        task = DecodingTask(self._model, options)
        sampling = yield task.sampling(window)
        return task.result(sampling, options.language or "en")

    def alignment_inputs(self, window: Audio) -> dict[str, Any]:
        """See `Backend`."""
        if compat.replaced("timing.find_alignment"):
            return {"mel": window.features}
        assert self.engine is not None
        return {"mel": window.features, "runner": Shared(self.engine.runner), "audio": window}


def backend_for(model: Whisper, fp16: bool) -> Backend:
    """Return the engine's backend, unless hooks or replaced parts need the model's own methods."""
    if compat.replaced("decoding") or compat.replaced("Whisper.decode") or not select.usable(model):
        return ReferenceBackend(model, fp16)
    return EngineBackend(model, engine_for(model, fp16))
