"""What is laid out, measured: words with their widths, break costs, and the times of any cue made of them.

The times of a cue depend on its words and on the word behind it alone, so that all ways to cut can be compared.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from .cues import TimedWord
from .line_breaking import CLAUSE, FORBIDDEN, TORN, break_costs, ends_sentence
from .rules import Rules
from .text_width import graphemes, width

FOREVER = 10**12  # milliseconds
SNAP_MS = 500  # a cue that starts or ends this near to a cut of the picture, starts or ends with it
SPLIT = 2 * TORN  # the cost of a break inside a word that is wider than a line


class Passage:
    """Words that are laid out together.

    Parameters
    ----------
    words
        In order, with times that were `repaired`.
    rules
        What cues keep to.
    segment_starts
        Indexes of words with which a segment begins.
    markup
        The words have tags of a subtitle file.
    """

    def __init__(
        self, words: Sequence[TimedWord], rules: Rules, segment_starts: Sequence[int] = (), markup: bool = False
    ) -> None:
        self.rules, self.markup, self.full_width = rules, markup, rules.full_width
        costs = break_costs(words, rules.language, segment_starts, markup)
        self.words: list[TimedWord] = []
        self.costs: list[float] = []  # of a break before each word
        self.openings: frozenset[int] = frozenset()  # words that begin a cue, whatever it costs
        self.origins: list[int] = []  # the index of each word in `words`
        for k, (word, cost) in enumerate(zip(words, costs, strict=True)):
            pieces = self._pieces(word)
            self.words += pieces
            self.costs += [cost, *[SPLIT] * (len(pieces) - 1)]
            self.origins += [k] * len(pieces)
        self._measure()
        self._set_times()

    def _pieces(self, word: TimedWord) -> list[TimedWord]:
        """Cut a word that is wider than a line into pieces that are not."""
        room = self.rules.max_line_width - max(self._room_of_names, self.dash_width)
        if self.measure(word.text.strip()) <= room or self.markup:
            return [word]
        pieces, text = [], ""
        for cluster in graphemes(word.text):
            if text.strip() and self.measure((text + cluster).strip()) > room:
                pieces.append(text)
                text = ""
            text += cluster
        pieces.append(text)
        step = (word.end - word.start) / len(pieces)
        return [
            replace(word, text=piece, start=word.start + i * step, end=word.start + (i + 1) * step)
            for i, piece in enumerate(pieces)
        ]

    # -- widths ------------------------------------------------------------------------------------------

    def measure(self, text: str) -> float:
        """Return the width of text by the rules."""
        return width(text, self.full_width, self.markup)

    @property
    def dash_width(self) -> float:
        """The room that a dash takes."""
        return self.measure(self.rules.dash) if self.rules.speaker_style == "dash" else 0

    @property
    def _room_of_names(self) -> float:
        return self.rules.max_line_width // 2 if self.rules.speaker_style == "name" else 0

    def _measure(self) -> None:
        texts = [word.text for word in self.words]
        self.ends_at = [0.0, *accumulate(map(self.measure, texts))]  # width of all words before one
        self.spaces = [self.measure(text) - self.measure(text.lstrip()) for text in texts]
        self.sentence_ends = [ends_sentence(text, self.rules.language) for text in texts]
        speakers = [word.speaker for word in self.words]
        self.turns = [k > 0 and speakers[k] != speakers[k - 1] for k in range(len(texts))]
        self.n_turns = [0, *accumulate(map(int, self.turns))]
        self.prefixes = [self._prefix(k) for k in range(len(texts))]
        for k, turn in enumerate(self.turns):
            if turn and self.costs[k] > CLAUSE:
                self.costs[k] = CLAUSE
        self._allow_some_break()

    def _allow_some_break(self) -> None:
        """Allow bad breaks where the script allows none for longer than a line is wide."""
        since = 0
        for k in range(1, len(self.words)):
            if self.costs[k] != FORBIDDEN:
                since = k
            elif self.width(since, k + 1) > self.rules.max_line_width - max(self._room_of_names, self.dash_width):
                self.costs[k] = SPLIT
                since = k

    def _prefix(self, k: int) -> str:
        """Return the name that a line begins with if it begins with this word: where the speaker is another."""
        speaker = self.words[k].speaker
        if self.rules.speaker_style != "name" or speaker is None or not (k == 0 or self.turns[k]):
            return ""
        room = self._room_of_names - self.measure(": ")
        while self.measure(speaker) > room:
            speaker = "".join(graphemes(speaker.rstrip("…"))[:-1]) + "…"
        return f"{speaker}: "

    def width(self, i: int, j: int) -> float:
        """Return the width of the words from `i` to before `j` on one line, without dash and name."""
        return self.ends_at[j] - self.ends_at[i] - self.spaces[i]

    def has_turn(self, i: int, j: int) -> bool:
        """Whether the speaker changes within these words."""
        return self.n_turns[j] > self.n_turns[i + 1]

    # -- times -------------------------------------------------------------------------------------------

    def _set_times(self) -> None:
        cuts = sorted(round(1000 * cut) for cut in self.rules.cuts)
        self.cuts = cuts
        middles = accumulate((round(500 * (word.start + word.end)) for word in self.words), max)
        self.shots = [bisect_right(cuts, middle) for middle in middles]
        self.starts = [round(1000 * word.start) for word in self.words]
        self.speech_ends = [*accumulate((round(1000 * word.end) for word in self.words), max)]
        for k, shot in enumerate(self.shots):
            cut = cuts[shot - 1] if shot else -1
            first_of_shot = k == 0 or self.shots[k - 1] < shot
            if self.starts[k] < cut or (cut >= 0 and first_of_shot and self.starts[k] - cut <= SNAP_MS):
                self.starts[k] = cut
        for k in range(1, len(self.starts)):  # also words of no length have their order
            self.starts[k] = max(self.starts[k], self.starts[k - 1] + 1)

    def start(self, i: int) -> int:
        """Return when a cue starts that begins with this word, in milliseconds; `FOREVER` behind the last."""
        return self.starts[i] if i < len(self.starts) else FOREVER

    def shot_end(self, j: int) -> int:
        """Return until when a cue may be shown whose last word is before `j`: until the picture is cut."""
        shot = self.shots[j - 1]
        return self.cuts[shot] - self.rules.gap_ms if shot < len(self.cuts) else FOREVER

    def end(self, i: int, j: int) -> int:
        """Return when a cue of the words from `i` to before `j` ends, in milliseconds."""
        rules, start = self.rules, self.starts[i]
        spoken = max(self.speech_ends[j - 1], start)
        needed = start + 1000 * self.width(i, j) / rules.max_cps
        wanted = max(spoken, min(needed, spoken + 1000 * rules.max_lead_out), start + 1000 * rules.min_duration)
        limit = min(start + int(1000 * rules.max_duration), self.start(j) - rules.gap_ms, self.shot_end(j))
        end = min(-int(-wanted // 1), limit)
        if self.start(j) - end < 1000 * rules.close_gaps or (limit - end <= SNAP_MS and limit == self.shot_end(j)):
            end = limit
        return max(end, start + 1)

    def crossed(self, start: int, end: int) -> int:
        """Return over how many cuts of the picture a cue with these times is shown."""
        return bisect_left(self.cuts, end) - bisect_right(self.cuts, start)
