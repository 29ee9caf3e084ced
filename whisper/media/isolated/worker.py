"""A decoder process: takes one file after the other from its owner, and gives the samples back.

It imports neither torch nor the rest of the package (`decoders.py` starts it so), and is ready within half a second.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import traceback
import warnings
from typing import Any

import numpy as np

from ...errors import AudioError, OptionError
from .. import reader
from ..sources import NAME_IN_MESSAGES
from . import frames
from .limits import Limits, allow_cpu, confine


def main(descriptor: int, limits: dict[str, Any]) -> None:
    """Serve until the owner closes the connection.

    Parameters
    ----------
    descriptor
        Of the socket to the owner.
    limits
        The fields of `Limits`.
    """
    import av.filter  # here, as no file can be opened for it later

    bounds = Limits(**limits)
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(ConnectionError):
        reader.resample(np.zeros((1, 16), np.int16), 8000, 16000)  # FFmpeg builds its tables
        av.logging.set_level(None)
        confine(bounds)
        frames.send(connection, frames.READY)
        while (received := frames.receive_job(connection)) is not None:
            job, file_descriptor = received
            allow_cpu(bounds.cpu_s)
            with io.FileIO(file_descriptor, "rb") as file:
                _decode(connection, file, **job)


def _decode(connection: socket.socket, file: Any, *, name: str, **options: Any) -> None:
    setattr(file, NAME_IN_MESSAGES, name)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for piece in reader.stream(file, **options):
                channels = np.ascontiguousarray(np.atleast_2d(piece))
                frames.send(connection, frames.PIECE, channels, len(channels))
    except ConnectionError:  # the owner has gone
        raise
    except (AudioError, OptionError) as error:
        kind = "OptionError" if isinstance(error, OptionError) else "AudioError"
        frames.send(connection, frames.FAILURE, json.dumps({"kind": kind, "message": str(error)}).encode())
        return
    except MemoryError:
        message = f"{name} takes more memory than the decoder may have"
        frames.send(connection, frames.FAILURE, json.dumps({"kind": "AudioError", "message": message}).encode())
        os._exit(1)  # what it holds may not be freed
    except Exception:  # whatever it is, the owner tells it
        frames.send(connection, frames.FAULT, traceback.format_exc().encode()[: frames.MOST_JOB_BYTES])
        return
    for warning in caught:
        frames.send(connection, frames.WARNING, str(warning.message).encode()[: frames.MOST_JOB_BYTES])
    frames.send(connection, frames.DONE)
