"""The command ``whisper serve``: models behind OpenAI's audio API, on HTTP.

Parses arguments; the room `server` does the work. The log goes to standard error, one line of JSON for each request.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import MissingDependencyError, OptionError
from ..options.flags import add_flags, take
from ..output.console import show
from .common import ModelOptions, Parser, explain, fail, load, model_name

if TYPE_CHECKING:
    from ..model import Whisper

DESCRIPTION = (
    "Serve models over HTTP, at the addresses and in the forms of OpenAI's audio API: programs that use whisper-1 only "
    "need another base URL. See docs/serve.md."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``whisper serve``, and return its exit code.

    0 when it was told to end, 1 when a model cannot be loaded, a package is missing, or the port is taken.
    """
    try:
        from ..server.run import run
        from ..server.settings import ServeOptions, read_keys
    except ImportError as error:
        missing = MissingDependencyError(f"whisper serve needs the package {error.name}", "serve")
        fail("serve", str(missing))
        return 1
    parser = build_parser()
    given = vars(parser.parse_args(argv))
    names = list(dict.fromkeys(given.pop("model")))
    try:
        options = take(ServeOptions, given)
        models = take(ModelOptions, given, model=names[0])
        keys = read_keys(options)
        for alias, name in options.aliases().items():
            if name not in names:
                raise OptionError(f"--alias {alias}={name}: {name} is not among the models, {', '.join(names)}")
    except OptionError as error:
        parser.error(str(error))

    def load_named(name: str) -> Whisper:
        return load(replace(models, model=name), name)

    scheme = "http" if options.tls_certificate is None else "https"
    address = f"{scheme}://{options.host}:{options.port}"
    page = f", the page on {address}/" if options.page else ""
    show(f"whisper: serving {', '.join(names)} on {address}/v1{page}", sys.stderr)
    try:
        run(options, names, load_named, keys)
    except Exception as error:  # reported in one line; the traceback only with SOTTO_DEBUG
        fail("serve", explain(error))
        return 1
    return 0


def build_parser() -> Parser:
    """Return the parser of ``whisper serve``."""
    from ..server.settings import ServeOptions

    parser = Parser(what="--model MODEL [MODEL ...]", prog="whisper serve", description=DESCRIPTION)
    add_flags(
        parser,
        ModelOptions,
        changed={
            "model": {
                "nargs": "+",
                "type": model_name,
                "default": [ModelOptions.model],
                "metavar": "MODEL",
                "help": "models to serve, by name, path or owner/name; the first is the default",
            }
        },
    )
    add_flags(parser, ServeOptions)
    return parser
