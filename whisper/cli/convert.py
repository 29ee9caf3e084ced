"""``whisper models convert``: a model from one format of weights to another, without loss where that is possible.

Knows the endings of names and what to tell the user; `load_model` reads and `save_checkpoint` writes.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from ..checkpoints.save import FORMATS, precisions, save_checkpoint
from ..errors import OptionError
from .common import model_name, say

if TYPE_CHECKING:
    from ..model import Whisper

ENDINGS = {".pt": "pt", ".bin": "ggml", "": "ctranslate2"}  # the formats of names that tell one


def add_convert(commands: Any) -> None:
    """Add the subcommand ``convert`` to those of ``whisper models``; its namespace has the `action` to call."""
    parser = commands.add_parser(
        "convert",
        what="MODEL OUT",
        prog="whisper models convert",
        help="write a model in another format",
        description="Write a model in another format: for openai-whisper (pt), faster-whisper (ctranslate2), "
        "whisper.cpp (ggml) or transformers (huggingface). Numbers stay exactly what they are unless a --precision is "
        "given, or the format has none that holds them, which is said.",
    )
    parser.add_argument(
        "model",
        type=model_name,
        metavar="MODEL",
        help="name of a model, path of a checkpoint, or owner/name on the hub",
    )
    parser.add_argument("out", metavar="OUT", help="file or new folder to write")
    parser.add_argument(
        "--format",
        choices=sorted(FORMATS),
        help="where not given, OUT tells it: .pt is pt, .bin is ggml, and a name without ending, a folder, ctranslate2",
    )
    parser.add_argument(
        "--precision",
        help="how numbers are stored, such as float16, int8 (ctranslate2) or q5_1 (ggml); where not given, float16 if "
        "that holds every number of the model exactly, and else float32",
    )
    parser.add_argument("--force", action="store_true", help="write over a file at OUT; a folder is never written over")
    parser.add_argument(
        "--model_dir", default=argparse.SUPPRESS, help="folder of downloaded models; where not given, ~/.cache/whisper"
    )
    parser.set_defaults(action=run)


def run(args: argparse.Namespace) -> int:
    """Convert as `args` say, and return the exit code.

    Raises
    ------
    WhisperError
        Where the model cannot be read or cannot be written so.
    """
    from ..checkpoints.load import load_model

    format = args.format or format_of(args.out)
    if args.precision is not None and args.precision not in precisions(format):
        known = ", ".join(precisions(format))
        raise OptionError(f"--precision {args.precision} is none that the format {format} has: give one of {known}")
    _check_place(args.out, args.force)
    model = load_model(args.model, device="cpu", download_root=getattr(args, "model_dir", None))
    if model.quantised:
        say(f"{args.model} is quantised ({model.quantised}): what it lost by that, {args.out} lacks too")
    precision = args.precision or _exact_precision(model, format)
    save_checkpoint(model, args.out, format=format, precision=precision)
    say(f"{args.out} written: {format}, {precision}, {_size(args.out) / 1e6:.1f} MB")
    return 0


def format_of(out: str) -> str:
    """Return the format that the name of a file or folder tells.

    Raises
    ------
    OptionError
        Where it tells none.
    """
    ending = os.path.splitext(os.path.basename(out.rstrip("/" + os.sep)))[1]
    if (format := ENDINGS.get(ending.lower())) in FORMATS:
        return str(format)
    raise OptionError(
        f"{out} does not tell the format to write: give --format {' or '.join(sorted(FORMATS))}, or a name that ends "
        "in .pt or .bin"
    )


def _check_place(out: str, force: bool) -> None:
    """Refuse at once what the writer would refuse, or would write over, after the work."""
    folder = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(folder):
        raise OptionError(f"{out} cannot be written: there is no folder {folder}; make it first")
    if os.path.isdir(out) and os.listdir(out):
        raise OptionError(f"{out} is a folder that is not empty, and none is written over; give another name")
    if os.path.isfile(out) and not force:
        raise OptionError(f"{out} is there already; give another name, or --force to write over it")


def _exact_precision(model: Whisper, format: str) -> str:
    """Return the smallest precision of `format` that loses nothing of `model`; else its widest, after a message."""
    import torch

    offered = precisions(format)
    if all(torch.equal(tensor.half().to(tensor.dtype), tensor) for tensor in model.state_dict().values()):
        return "float16"
    if "float32" not in offered:
        say(f"the model's numbers are rounded to float16, as the format {format} has no float32")
    return "float32" if "float32" in offered else "float16"


def _size(path: str) -> int:
    files = [os.path.join(path, name) for name in os.listdir(path)] if os.path.isdir(path) else [path]
    return sum(map(os.path.getsize, files))
