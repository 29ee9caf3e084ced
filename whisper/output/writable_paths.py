"""Names of output files, and checks that they can be written, before the work starts.

The checks leave no file behind, and cannot foresee a disk that fills up later.
"""

from __future__ import annotations

import errno
import os
import reprlib

from ..errors import OptionError
from ..files import Path, temporary_beside


def make_folder(folder: Path) -> None:
    """Make a folder if it is missing, and check that a file can be written into it.

    Raises
    ------
    OptionError
        It cannot. (A ValueError.)
    """
    try:
        os.makedirs(folder, exist_ok=True)
        probe = temporary_beside(os.path.join(folder, "probe"))
        with open(probe, "xb"):
            pass
        os.unlink(probe)
    except (OSError, ValueError) as error:  # the second for names that no folder can have
        raise OptionError(f"files cannot be written into the folder {os.fspath(folder)!a}: {_reason(error)}") from None


def check_file(path: Path) -> None:
    """Check that a file can be created or replaced in an existing folder.

    Raises
    ------
    OptionError
        It is a folder or a broken link, or the name is not valid. (A ValueError.)
    """
    path = os.fspath(path)
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, "a folder of this name is in its place")
        temporary_beside(path)
        if not os.path.lexists(path):
            os.lstat(path)
    except FileNotFoundError as error:
        if error.filename != path:
            raise OptionError(f"the file {path!a} cannot be written: {_reason(error)}") from None
    except (OSError, ValueError) as error:
        raise OptionError(f"the file {path!a} cannot be written: {_reason(error)}") from None


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)


def stem_of(audio_path: object) -> str:
    """Return the name that the output files of a recording have: its own, without folder and extension.

    Raises
    ------
    OptionError
        `audio_path` is neither text nor a path. (A ValueError.)
    """
    if not isinstance(audio_path, (str, os.PathLike)):
        raise OptionError(f"audio_path must be text or a path, not {reprlib.repr(audio_path)}")
    return os.path.splitext(os.path.basename(os.fspath(audio_path)))[0]
