"""Speech against text: speech without text, sparse text, and text that repeats itself.

Pure functions on seconds, segments and text; no audio, no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

from ..results import Segment
from ..spans import Span
from ..speech.rates import MIN_TEXT_BYTES_PER_SECOND

TEXT_TIME_TOLERANCE = 0.5  # seconds by which times of text may be wrong
MIN_UNCOVERED_SECONDS = 0.8  # of speech without text, beside speech with text
MIN_SPEECH_SEGMENT_SECONDS = 0.6  # without any text; padded, so a third of it is speech
COPIED_TOKENS = 12  # about ten words: of what was said before, people seldom say so many again
# Segments that begin alike: a model that once wrote "Chapter X1" at a change of speakers writes it at each.
STARTING_TOKENS, ALIKE_STARTS = 3, 3
MAX_JOINED_GAP = 1.0  # seconds: uncovered spans closer to each other are one


def text_spans(segments: Sequence[Segment]) -> list[Span]:
    """Return the spans of the text: of words where their times are known, else of segments."""
    spans: list[Span] = []
    for segment in segments:
        if not segment["text"].strip():
            continue
        words = segment.get("words") or []
        spans += [(w["start"], w["end"]) for w in words] or [(segment["start"], segment["end"])]
    return spans


def uncovered_speech(speech: Sequence[Span], covered: Sequence[Span], start: float, end: float) -> list[Span]:
    """Return the spans between two times that have speech and no text.

    Parameters
    ----------
    speech
        Speech segments, in order.
    covered
        Spans with text; taken to be `TEXT_TIME_TOLERANCE` longer on both sides.
    start, end
        The part of the recording to search.

    Returns
    -------
    In order. Each holds at least `MIN_UNCOVERED_SECONDS` of uncovered speech, or a whole speech segment of at least
    `MIN_SPEECH_SEGMENT_SECONDS`. Spans closer together than `MAX_JOINED_GAP` are one.
    """
    complete = {
        span
        for span in speech
        if start <= span[0] and span[1] <= end and span[1] - span[0] >= MIN_SPEECH_SEGMENT_SECONDS
    }
    left = [(max(a, start), min(b, end)) for a, b in speech if b > start and a < end]
    for begin, stop in covered:
        hole = (begin - TEXT_TIME_TOLERANCE, stop + TEXT_TIME_TOLERANCE)
        left = [rest for span in left for rest in _subtract(span, hole)]
    joined: list[tuple[float, float, float]] = []  # and the seconds of speech within
    for a, b in left:
        seconds = max(b - a, MIN_UNCOVERED_SECONDS) if (a, b) in complete else b - a
        if joined and a - joined[-1][1] < MAX_JOINED_GAP and not any(joined[-1][1] <= c[0] < a for c in covered):
            joined[-1] = (joined[-1][0], b, joined[-1][2] + seconds)
        else:
            joined.append((a, b, seconds))
    return [(a, b) for a, b, seconds in joined if seconds >= MIN_UNCOVERED_SECONDS]


def _subtract(span: Span, hole: Span) -> list[Span]:
    """Return what remains of a span without the part in `hole`."""
    rests = [(span[0], min(span[1], hole[0])), (max(span[0], hole[1]), span[1])]
    return [(a, b) for a, b in rests if b > a]


def is_sparse(text: str, speech: Sequence[Span]) -> bool:
    """Whether a text is too short for the speech segments that it transcribes.

    Every speech segment has at least one word, and in no language does a second of speech have
    under four letters.
    """
    seconds = sum(end - start for start, end in speech)
    return n_words(text) < len(speech) or n_bytes(text) < MIN_TEXT_BYTES_PER_SECOND * seconds


def n_words(text: str) -> int:
    """Count words; in a script without spaces, what may be as many."""
    return max(len(text.split()), n_bytes(text) // 8)


def n_bytes(text: str) -> int:
    """Count the bytes of letters and digits in UTF-8.

    They carry about as much in one script as in another.
    """
    return len("".join(c for c in text if c.isalnum()).encode())


def group_segments(speech: Sequence[Span], max_seconds: float) -> list[Span]:
    """Group speech segments into chunks of `max_seconds`; a longer segment is its own chunk."""
    chunks: list[Span] = []
    for start, end in speech:
        if chunks and end - chunks[-1][0] <= max_seconds:
            chunks[-1] = (chunks[-1][0], end)
        else:
            chunks.append((start, end))
    return chunks


def is_echo(text: str, neighbour: str) -> bool:
    """Whether most of a text also occurs, without a gap, in its neighbour's text."""
    a, b = _bare(text), _bare(neighbour)
    if not a or not b:
        return False
    return SequenceMatcher(None, a, b, autojunk=False).find_longest_match().size >= 0.7 * len(a)


def shares_run(tokens: Sequence[int], earlier: Sequence[int], length: int = COPIED_TOKENS) -> bool:
    """Whether `length` tokens in a row also occur in a row in an earlier text."""
    runs = {tuple(earlier[i : i + length]) for i in range(len(earlier) - length + 1)}
    return any(tuple(tokens[i : i + length]) in runs for i in range(len(tokens) - length + 1))


def repeats_start(texts: Sequence[Sequence[int]], earlier: Sequence[Sequence[int]]) -> bool:
    """Whether `ALIKE_STARTS` segments begin with the same tokens, and one of them is among `texts`."""
    starts = [
        [tuple(text[:STARTING_TOKENS]) for text in some if len(text) > STARTING_TOKENS] for some in (texts, earlier)
    ]
    counts = Counter([*starts[0], *starts[1]])
    return any(counts[start] >= ALIKE_STARTS for start in starts[0])


def ends_in_repetition(texts: Sequence[str], min_repetitions: int = 3) -> bool:
    """Whether the last texts, or pairs of texts, are all the same: a loop across windows."""
    bare = [_bare(text) for text in texts]
    for period in (1, 2):
        tail = bare[-min_repetitions * period :]
        if (
            len(tail) == min_repetitions * period
            and all(tail)
            and all(tail[i] == tail[i - period] for i in range(period, len(tail)))
        ):
            return True
    return False


def _bare(text: str) -> str:
    """Return the letters and digits alone, in lower case."""
    return "".join(c for c in text.casefold() if c.isalnum())
