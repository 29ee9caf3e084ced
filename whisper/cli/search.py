"""The command ``whisper search``: where a phrase was said, in all recordings of a job."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from ..errors import OptionError
from ..output.console import show
from ..utils import format_timestamp
from .common import Parser, explain, fail, say

CONTEXT = 60  # characters that are shown before and after


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``whisper search``, and return its exit code.

    0 where the phrase was found, 1 where it was not, or after an error.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        after = None if args.after is None else _moment(args.after)
        return _search(args.out, args.phrase, args.language, args.speaker, after, args.limit, args.json)
    except OptionError as error:
        parser.error(str(error))
    except Exception as error:  # reported in one line; the traceback only with SOTTO_DEBUG
        fail("search", explain(error))
        return 1


def build_parser() -> Parser:
    """Return the parser."""
    parser = Parser(
        what="DIR PHRASE",
        prog="whisper search",
        description="Find where a phrase was said in the recordings of a job, the best first. Case and accents do not "
        "matter.",
    )
    parser.add_argument("out", metavar="DIR", help="folder of a job: whisper jobs run ... --out DIR")
    parser.add_argument("phrase", metavar="PHRASE", help="words that follow each other")
    parser.add_argument("--language", help="only what is in this language")
    parser.add_argument("--speaker", help="only what this speaker says, or the channel of this number")
    parser.add_argument("--after", metavar="DATE", help="only recordings whose file was written since, as 2026-05-31")
    parser.add_argument("--limit", type=int, default=20, help="at most so many places")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each place")
    return parser


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise OptionError(f"--after must be a date such as 2026-05-31 or 2026-05-31T18:00, not {text!r}") from None


def _search(
    out: str, phrase: str, language: str | None, speaker: str | None, after: float | None, limit: int, as_json: bool
) -> int:
    from ..jobs import shown
    from ..jobs.job import stores
    from ..jobs.reports.search import SearchIndex

    opened = stores(out)
    index = SearchIndex(out)
    try:
        index.update(opened)
        hits = index.search(phrase, language=language, speaker=speaker, after=after, limit=max(limit, 1))
    finally:
        index.close()
        for store in opened:
            store.close()
    page = shown.page_of(out) if hits else None
    for hit in hits:
        where = None if page is None else shown.address(page, out, hit.source, hit.start)
        if as_json:
            times = {"start": round(hit.start, 3), "end": round(hit.end, 3)}
            show(json.dumps({**asdict(hit), **times, **({} if where is None else {"page": where})}), sys.stdout)
            continue
        who = f"  {hit.speaker}" if hit.speaker is not None else ""
        show(f"{hit.source}  {format_timestamp(hit.start)}{who}", sys.stdout)
        context = " ".join(filter(None, (_last_words(hit.before), f"[{hit.text}]", _first_words(hit.after))))
        show(f"    {context}", sys.stdout)
        if where is not None:
            show(f"    {where}", sys.stdout)
    if not hits:
        say(f"{phrase!r} was not found")
    return 0 if hits else 1


def _first_words(text: str) -> str:
    """Return the beginning of a text, cut between words where it has some."""
    if len(text) <= CONTEXT:
        return text
    return (text[:CONTEXT].rpartition(" ")[0] or text[:CONTEXT]) + " …"


def _last_words(text: str) -> str:
    """Return the end of a text, cut between words where it has some."""
    if len(text) <= CONTEXT:
        return text
    return "… " + (text[-CONTEXT:].partition(" ")[2] or text[-CONTEXT:])
