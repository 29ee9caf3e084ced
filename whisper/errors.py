"""Every error that this package raises on purpose, as one tree under `WhisperError`.

Each class is also the built-in class that openai-whisper raised in that place, so an ``except RuntimeError``
written for the original still catches it. A message says what happened, with which value, and what to do.
"""


class WhisperError(Exception):
    """The root: ``except WhisperError`` catches whatever this package reports."""


class AudioError(WhisperError, RuntimeError):
    """A recording that is missing, unreadable, empty or without sound."""


class ModelNotFoundError(WhisperError, RuntimeError):
    """A name that is neither a known model nor a checkpoint on this machine."""


class CheckpointError(WhisperError, RuntimeError):
    """A checkpoint that is truncated, foreign or incomplete."""


class DownloadError(WhisperError, RuntimeError):
    """A download that failed or whose contents are not what was promised."""


class DeviceError(WhisperError, RuntimeError):
    """A device that this machine does not have or that torch was built without."""


class OptionError(WhisperError, ValueError):
    """An option with a wrong value, or options that exclude each other."""


class UnknownOptionError(OptionError, TypeError):
    """An option that does not exist; the message names the nearest one that does."""


class LanguageError(OptionError):
    """A language that Whisper, or this model, does not know."""


class UnknownLanguageTokenError(LanguageError, KeyError):
    """A language code that the vocabulary has no token for."""

    __str__ = Exception.__str__  # KeyError's puts the message in quotation marks


class ShapeError(WhisperError, ValueError, AssertionError):
    """A tensor of the wrong shape; the message names the right one and how to get it."""


class NumberError(WhisperError, ValueError, AssertionError):
    """A number that cannot be meant: a remainder where none may be left, a time before zero."""


class ResultError(WhisperError, ValueError, TypeError):
    """A result that is not of the form that `transcribe` gives, so that no file can be made of it."""


class CancelledError(WhisperError, RuntimeError):
    """A transcription that was told to stop; nothing is wrong with it."""


class ProcessError(WhisperError, RuntimeError):
    """A transcription that another process has begun, before this one was forked from it."""


class ServerError(WhisperError, RuntimeError):
    """A server that cannot be reached, or that answers with an error.

    Parameters
    ----------
    message
        What happened.
    status
        Of HTTP, where there was an answer.
    code
        What the server calls it, for programs.
    retry_after
        Seconds after which the server wants to be asked again.
    """

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after = status, code, retry_after


class TrainingError(WhisperError, RuntimeError):
    """Training data or a training configuration that cannot be used."""


class DataError(WhisperError, ValueError):
    """A manifest, texts or scores that cannot be used: nothing in them, or not in a known form."""


class MissingDependencyError(WhisperError, ImportError, RuntimeError):
    """An optional package that is not installed.

    Also a RuntimeError, as every error of `load_model` is, which may need a package for a model.

    Parameters
    ----------
    what
        What needs which package, such as ``"scoring needs rapidfuzz"``.
    extra
        The extra of this distribution that installs it; the message says how.
    """

    def __init__(self, what: str, extra: str = "") -> None:
        super().__init__(f"{what}: pip install 'sotto[{extra}]'" if extra else what)
        self.extra = extra


class SessionError(WhisperError, RuntimeError):
    """A live session that is closed, or whose program failed on one of its events."""


class CapacityError(SessionError):
    """One more live session than this machine keeps up with; those that run are not slowed down."""


class ItemError(WhisperError, ValueError):
    """An item of a live session that was ended before any sound of it had come."""
