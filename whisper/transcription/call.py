"""One call of `transcribe` as it runs: the backend that computes, and the event that cancels it.

All recordings of the call share it, with its checked settings. Reads no audio and decodes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engine.priorities import current_claim
from ..engine.scheduler import Group
from ..errors import CancelledError
from . import audio_context

if TYPE_CHECKING:
    from ..engine.engine import Caller, Handle
    from ..engine.operations import InlineRequest, RequestCoroutine
    from .backends import Backend
    from .settings import TranscribeSettings


class Call:
    """What the recordings of one call of `transcribe` share.

    Attributes
    ----------
    settings
        The checked options.
    backend
        Runs the model.
    audio_context
        How much of each window the encoder reads.
    chunks
        The chunks of all recordings, of which `batch_size` run at once.
    claim
        The class and key of all its requests: those of the context in which it was made.
    """

    def __init__(self, settings: TranscribeSettings, backend: Backend) -> None:
        self.settings, self.backend = settings, backend
        self.audio_context = audio_context.choose(settings.options.audio_context, backend, settings.model.device)
        self.chunks = Group(settings.options.batch_size)
        self.claim = current_claim()

    def in_language(self, language: str) -> Call:
        """Return the same call with a language that is given."""
        return Call(self.settings.in_language(language), self.backend)

    def raise_if_cancelled(self) -> None:
        """Raise `CancelledError` if the caller has cancelled the transcription."""
        cancel = self.settings.options.cancel
        if cancel is not None and cancel.is_set():
            raise CancelledError("the transcription was cancelled")

    def caller(self) -> Caller | None:
        """Return the engine's `Caller` for several requests that one thread waits for."""
        cancel = self.settings.options.cancel
        return self.backend.caller(None if cancel is None else cancel.is_set)

    def start(
        self, coroutine: RequestCoroutine[Any], caller: Caller | None = None, group: Group | None = None
    ) -> Handle | InlineRequest:
        """Return a request that runs the coroutine when its result is waited for."""
        caller, n_rows = caller or self.caller(), self.settings.n_rows
        return self.backend.submit(coroutine, n_rows, caller=caller, group=group, claim=self.claim)
