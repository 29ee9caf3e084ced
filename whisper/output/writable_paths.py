"""Whether files can be written where they are asked for, looked at before the work whose result they hold.

Writes nothing that stays, and does not foresee a disk that fills up meanwhile.
"""

from __future__ import annotations

import errno
import os

from ..errors import OptionError
from ..files import Path, temporary_beside


def make_folder(folder: Path) -> None:
    """Make a folder where it is missing, and see whether a file can be written into it.

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
    """See whether a file of this name may be written, new or in the place of an old one, in a folder that is there.

    Raises
    ------
    OptionError
        A folder is in its place, it is a link to nowhere, or no file can have this name. (A ValueError.)
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
