"""Model backends of a transcription: the model's own methods, or the engine of the fast path.

The reference backend is for models with hooks or replaced parts; see `choice.usable`. Both are
awaited, although the reference backend asks nothing of an engine. Knows no recording: windows in,
results out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from .. import compat
from ..decoding import (
    DecodingOptions,
    DecodingResult,
    compute_dtype,
    sampled_result,
    window_sampling,
)
from ..device.lazy_torch import Tensor
from ..device.torch_state import clean_state
from ..engine.engine import engine_for
from ..engine.operations import DetectLanguage, Encode, InlineRequest, Sample
from ..runtime import choice
from ..timing import attend_operation
from ..tokenizer import get_tokenizer

if TYPE_CHECKING:
    from ..engine.engine import Caller, Engine, Handle
    from ..engine.operations import RequestCoroutine
    from ..engine.priorities import Claim
    from ..engine.scheduler import Group
    from ..model import Whisper
    from ..runtime.interface import EncodedWindow
    from ..tokenizer import Tokenizer


class Backend(Protocol):
    """A way to run the model; the type of an encoded window is its own.

    Attributes
    ----------
    compute_type
        What it computes in.
    takes_short_windows
        Whether windows may have less than 30 s. The model's own modules take 30 s alone, and so may a function that
        a program has put in, and that gets the window.
    """

    compute_type: str
    takes_short_windows: bool

    def caller(self, stop: Callable[[], bool] | None = None) -> Caller | None:
        """Return who waits for several requests; `stop` is polled, and says whether to give up."""
        ...

    def submit(
        self,
        coroutine: RequestCoroutine[Any],
        n_rows: int = 1,
        *,
        caller: Caller | None = None,
        group: Group | None = None,
        claim: Claim | None = None,
    ) -> Handle | InlineRequest:
        """Return a request that runs the coroutine when its result is waited for; see `Engine.submit`."""
        ...

    async def encode(self, mel: Tensor) -> Any:
        """Encode a window, ``(n_mels, 3000)``, once for detection, decoding and alignment."""
        ...

    async def detect(self, window: Any) -> dict[str, float]:
        """Return the probability of each language."""
        ...

    async def decode(self, window: Any, options: DecodingOptions) -> DecodingResult:
        """Decode a window; its language is in the options."""
        ...

    async def alignment_inputs(self, window: Any, tokenizer: Tokenizer, text_tokens: Sequence[int]) -> dict[str, Any]:
        """Return the arguments of `timing.find_alignment` that stand for a window with a known text."""
        ...


class ReferenceBackend:
    """The model's own methods, looked up when called."""

    def __init__(self, model: Whisper, fp16: bool) -> None:
        self._model = model
        self._dtype = compute_dtype(fp16, model.device)
        self.compute_type, self.takes_short_windows = str(self._dtype).removeprefix("torch."), False

    def caller(self, stop: Callable[[], bool] | None = None) -> None:
        """See `Backend`; there is nothing that several requests could share."""
        return None

    def submit(
        self,
        coroutine: RequestCoroutine[Any],
        n_rows: int = 1,
        *,
        caller: Caller | None = None,
        group: Group | None = None,
        claim: Claim | None = None,
    ) -> InlineRequest:
        """See `Backend`."""
        return InlineRequest(coroutine)

    async def encode(self, mel: Tensor) -> Tensor:
        """See `Backend`; returns ``(n_audio_ctx, n_audio_state)``."""
        mel = mel.to(self._model.device).to(self._dtype)
        with clean_state():
            features: Tensor = self._model.encoder(mel.unsqueeze(0))[0]
        return features

    async def detect(self, window: Tensor) -> dict[str, float]:
        """See `Backend`."""
        _, probs = self._model.detect_language(window)
        language_probs: dict[str, float] = probs
        return language_probs

    async def decode(self, window: Tensor, options: DecodingOptions) -> DecodingResult:
        """See `Backend`."""
        return cast("DecodingResult", self._model.decode(window, options))  # one window, one result

    async def alignment_inputs(
        self, window: Tensor, tokenizer: Tokenizer, text_tokens: Sequence[int]
    ) -> dict[str, Any]:
        """See `Backend`."""
        return {"mel": window}


class EngineBackend:
    """An engine, which other transcriptions use at the same time."""

    def __init__(self, model: Whisper, engine: Engine) -> None:
        self._model, self._engine = model, engine
        gives_away = compat.replaced("timing.find_alignment") or compat.replaced("transcribe.add_word_timestamps")
        self.compute_type, self.takes_short_windows = engine.runner.compute_type, not gives_away

    def caller(self, stop: Callable[[], bool] | None = None) -> Caller:
        """See `Backend`."""
        return self._engine.caller(stop)

    def submit(
        self,
        coroutine: RequestCoroutine[Any],
        n_rows: int = 1,
        *,
        caller: Caller | None = None,
        group: Group | None = None,
        claim: Claim | None = None,
    ) -> Handle:
        """See `Backend`."""
        return self._engine.submit(coroutine, n_rows, caller=caller, group=group, claim=claim)

    async def encode(self, mel: Tensor) -> EncodedWindow:
        """See `Backend`."""
        return await Encode(mel.to(self._model.device) if isinstance(mel, Tensor) else mel)

    async def detect(self, window: EncodedWindow) -> dict[str, float]:
        """See `Backend`."""
        tokenizer = get_tokenizer(self._model.is_multilingual, num_languages=self._model.num_languages)
        probs = await DetectLanguage(window, tokenizer.sot, tokenizer.all_language_tokens)
        return dict(zip(tokenizer.all_language_codes, probs, strict=True))

    async def decode(self, window: EncodedWindow, options: DecodingOptions) -> DecodingResult:
        """See `Backend`."""
        sampling = await Sample(window_sampling(self._model, options, window))
        return sampled_result(self._model, options, sampling)

    async def alignment_inputs(
        self, window: EncodedWindow, tokenizer: Tokenizer, text_tokens: Sequence[int]
    ) -> dict[str, Any]:
        """See `Backend`."""
        if not text_tokens or compat.replaced("timing.find_alignment"):
            return {"mel": window.features}
        attention = await attend_operation(self._model, tokenizer, text_tokens, window)
        return {"mel": window.features, "attention": attention}


def backend_for(model: Whisper, fp16: bool) -> Backend:
    """Return the engine's backend, unless hooks or replaced parts need the model's own methods."""
    if compat.replaced("decoding") or compat.replaced("Whisper.decode") or not choice.usable(model):
        return ReferenceBackend(model, fp16)
    return EngineBackend(model, engine_for(model, fp16))
