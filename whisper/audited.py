"""A row of windows whose text is held against the speech in them, window by window, before it prompts anything.

Text where nobody speaks is dropped, loops are stopped, speech that has no text is decoded again on its own, and where a
window has too little text for its speech, piece by piece; if that helps, the windows after it are short, too. What was
done, and what remains doubtful, is noted for the recording's `Report`. Cannot hear better than the model: what fails
in every attempt is kept at its best, and noted.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from .audio import FRAMES_PER_SECOND, N_FRAMES
from .audit import Finding, Kind, finding
from .coverage import Span, covered_by, gaps, goes_round, is_echo, is_thin, n_bytes, pieces
from .decoding import DecodingResult
from .inventions import Evidence, why_invented
from .plan import SECOND_LOOK_BEAMS, Plan
from .results import Segment
from .segments import is_improbable, is_silence
from .stretch import Heard, Reading, Recording, Stretch
from .vad import Speech
from .windows import Clip, Window
from .work import Deliver, Job

PAD = 0.2  # seconds around speech that is decoded on its own; the model wants to hear the onset
SHORTEST = 300  # frames: a window is not cut below this when its text goes round in circles
PIECE = 3.0  # seconds: weak models read this much speech at once as well as a single word
MORE = 1.2  # times as much text, which speaks for the shorter windows
PATIENCE = 2  # hotter attempts in a row that are no better than the best so far, until no further is made
HOPELESS = -1.5  # log-probability below which one such attempt is enough: no temperature makes it a good text
GOOD_WINDOWS = 16  # short ones in a row, after which one twice as long is tried
TOKENS_PER_SECOND = 30.0  # of speech; the most wasteful scripts take 20 at normal speed
SPARE_TOKENS = 24  # timestamps, and slack for very short windows
FASTEST = 30.0  # bytes of text in a second of speech
KEPT_TEXTS = 8  # texts that a loop over several windows is looked for in


class AuditedStretch(Stretch):
    """See `Stretch`; its recording must have speech."""

    def __init__(
        self,
        plan: Plan,
        recording: Recording,
        clips: list[Clip],
        take: Callable[[Deliver], None] | None = None,
        begins_at: float = 0.0,
    ) -> None:
        super().__init__(plan, recording, clips, take, begins_at)
        assert recording.speech is not None
        self._speech: Speech = recording.speech
        self._texts: list[str] = []  # the last ones that were kept
        self._longest = N_FRAMES / FRAMES_PER_SECOND  # seconds of the windows, as far as pauses allow
        self._n_good = 0  # windows in a row that were short and had enough text
        self._went_round = False  # the text before repeats itself, and would make the next one do so, too
        self._findings: list[Finding] = []  # of the window that is being read

    def _transcribe(self, window: Window) -> Generator[Job, Any, Reading]:
        """See `Stretch`."""
        self._findings, last_speech = [], self._last_speech
        tries_longer = self._n_good >= GOOD_WINDOWS
        window = self._shortened(window, 2 * self._longest if tries_longer else self._longest)
        if self._reads_short or self._went_round:
            self._history.reset()  # with a prompt, models skip the first word of a short window
        reading = yield from self._read_whole(window)
        if not reading.again:
            islands = self._speech.within(window.start, min(reading.seek / FRAMES_PER_SECOND, window.end))
            if tries_longer or (
                self._has_pieces(window, islands, reading) and is_thin(_text(reading.segments), islands)
            ):
                whole, of_whole = (reading, self._last_speech), self._findings
                self._findings, self._last_speech = [], last_speech
                islands, seek = self._without_the_cut_one(islands, reading.seek)
                segments = yield from self._read_in_pieces(window, islands, seek)
                reading = Reading(segments, seek)
                if n_bytes(_text(segments)) < MORE * n_bytes(_text(whole[0].segments)):
                    (reading, self._last_speech), self._findings = whole, of_whole
                    self._longest *= 2 if tries_longer else 1
                elif len(self._finer(islands)) > 1:
                    self._longest = PIECE
                self._n_good = 0
            elif self._reads_short:
                self._n_good += 1
            yield from self._fill_gaps(window, reading)
        self._texts = [*self._texts, *(s["text"] for s in reading.segments)][-KEPT_TEXTS:]
        self._went_round = any(self._repeats(s["compression_ratio"]) for s in reading.segments)
        self.recording.report.findings += self._findings
        return reading

    @property
    def _reads_short(self) -> bool:
        """Whether windows are shorter than the model's, since it lost speech in those."""
        return self._longest < N_FRAMES / FRAMES_PER_SECOND

    def _note(self, kind: Kind, span: Span, text: str, reason: str) -> None:
        self._findings.append(finding(kind, span, text, reason))

    # -- a window, whole and in pieces -------------------------------------------------------------------

    def _read_whole(self, window: Window) -> Generator[Job, Any, Reading]:
        heard = yield from self._hear(window)
        result = yield from self._decode(heard)
        if self._can_be_halved(result, window):
            self._note("loop", (window.start, window.end), result.text, "decoded again in halves")
            self._history.reset()
            return (yield from self._read_whole(self._shortened(window, window.duration / 2)))
        reading = self._read(heard, result)
        if self._history.prompt() and goes_round([*self._texts, *(s["text"] for s in reading.segments)]):
            self._history.reset()  # the prompt may have suggested it
            reading = self._read(heard, (yield from self._decode(heard)))
        reading.segments = [s for s in reading.segments if self._is_said(s, heard.language)]
        return reading

    def _read_in_pieces(self, window: Window, islands: list[Span], seek: int) -> Generator[Job, Any, list[Segment]]:
        """Decode the speech of a window a few seconds at a time, and what is thin even so in still shorter pieces."""
        segments: list[Segment] = []
        for piece in self._finer(islands):
            heard = yield from self._hear(self._window_around(piece, window, seek))
            result = yield from self._look(heard, self.plan.decoding.beam_size)
            found = [] if result.is_loop else self._read(heard, result).segments
            found = [s for s in found if self._is_said(s, heard.language)]
            within = self._speech.within(*piece)
            is_lost = result.is_loop or (is_thin(_text(found), within) and not self._hears_nobody(found))
            if is_lost and len(self._finer(within)) > 1:
                finer = yield from self._read_in_pieces(window, within, seek)
                found = finer if n_bytes(_text(finer)) >= MORE * n_bytes(_text(found)) else found
            segments += found
        return segments

    def _has_pieces(self, window: Window, islands: list[Span], reading: Reading) -> bool:
        """Whether its speech could be decoded in other windows than the one that was."""
        if len(islands) != 1:
            return bool(islands)
        is_part = islands[0][1] - islands[0][0] < window.duration - 1.0
        return is_part or (not self._hears_nobody(reading.segments) and len(self._finer(islands)) > 1)

    def _hears_nobody(self, segments: list[Segment]) -> bool:
        """Whether there is no text, and the model is sure that there is none."""
        most = self.plan.options.no_speech_threshold
        return most is not None and not _text(segments).strip() and all(s["no_speech_prob"] > most for s in segments)

    def _finer(self, islands: list[Span]) -> list[Span]:
        """Cut speech that was decoded at once into what is decoded at once next: pieces, stretches, parts of one."""
        if islands[-1][1] - islands[0][0] > PIECE:
            return pieces(self._parts(islands, PIECE), PIECE)
        return islands if len(islands) > 1 else self._speech.cut(islands[0], PIECE, self.plan.vad_options.threshold)

    def _parts(self, islands: list[Span], longest: float) -> list[Span]:
        """Cut the stretches of speech that are longer than so many seconds."""
        return [part for island in islands for part in self._speech.cut(island, longest)]

    def _without_the_cut_one(self, islands: list[Span], seek: int) -> tuple[list[Span], int]:
        """Leave a last stretch of speech that is cut in two at frame `seek` to the next window, if there are others."""
        end = seek / FRAMES_PER_SECOND
        around = end - 0.01, end + 0.01
        if len(islands) > 1 and self._speech.within(*around) == [around]:
            return islands[:-1], round((islands[-2][1] + islands[-1][0]) / 2 * FRAMES_PER_SECOND)
        return islands, seek

    def _shortened(self, window: Window, longest: float) -> Window:
        """Cut a window off behind the speech that fits into so many seconds, in the pause behind it."""
        if window.duration <= longest:
            return window
        parts = pieces(self._parts(self._speech.within(window.start, window.end), longest), longest)
        end = (parts[0][1] + parts[1][0]) / 2 if len(parts) > 1 else window.end
        return Window(window.clip, window.seek, max(round(end * FRAMES_PER_SECOND) - window.seek, 1))

    def _window_around(self, span: Span, window: Window, last: int) -> Window:
        """Return a window for a stretch of speech; it ends at frame `last`, where the next window begins to read."""
        start, end = (
            0.0 if self._speech.seconds_within(*side) else PAD  # nothing of the words that it was cut off from
            for side in ((span[0] - PAD, span[0]), (span[1], span[1] + PAD))
        )
        seek = max(round((span[0] - start) * FRAMES_PER_SECOND), 0)
        end = min(round((span[1] + end) * FRAMES_PER_SECOND), seek + N_FRAMES, last)
        return Window(window.clip, seek, max(end - seek, 1))

    # -- decoding ----------------------------------------------------------------------------------------

    def _decode(self, heard: Heard) -> Generator[Job, Any, DecodingResult]:
        """Decode at each temperature in turn until the text passes; the best result where none does."""
        best: DecodingResult | None = None
        n_worse = 0
        changes = {"stop_loops": True, "sample_len": self._most_tokens(heard.window)}
        for temperature in self.plan.options.temperatures():
            result = yield from self._attempt(heard, temperature, prompt=self._history.prompt(), **changes)
            if self._passes(result, heard.window) or self._can_be_halved(result, heard.window):
                return result
            if best is None or self._rank(result, heard.window) > self._rank(best, heard.window):
                best, n_worse = result, 0
            else:
                n_worse += 1
            if n_worse >= (PATIENCE if best.avg_logprob >= HOPELESS else 1):
                break
            self.plan.look_whether_cancelled()
        assert best is not None
        kind: Kind = "loop" if best.is_loop else "doubtful"
        why = f"no attempt passed; log-probability {best.avg_logprob:.2f}"
        self._note(kind, (heard.window.start, heard.window.end), best.text, why)
        return best

    def _look(self, heard: Heard, beam_size: int | None) -> Generator[Job, Any, DecodingResult]:
        """Decode once, without the text before."""
        prompt, most = self._history.carried(), self._most_tokens(heard.window)
        changes = {"beam_size": beam_size, "stop_loops": True, "sample_len": most}
        return (yield from self._attempt(heard, 0.0, prompt=prompt, **changes))

    def _can_be_halved(self, result: DecodingResult, window: Window) -> bool:
        """Whether a text went round in circles that may not in half of the window."""
        return result.is_loop and window.size >= 2 * SHORTEST

    def _passes(self, result: DecodingResult, window: Window) -> bool:
        """Whether nothing speaks against a text. What somebody says ten times may repeat itself."""
        if result.is_loop or self._is_too_much(result, window):
            return False
        return not is_improbable(result, self.plan.options) or is_silence(result, self.plan.options)

    def _is_too_much(self, result: DecodingResult, window: Window) -> bool:
        """Whether a text repeats itself more than there is time for."""
        seconds = self._speech.seconds_within(window.start, window.end)
        return self._repeats(result.compression_ratio) and n_bytes(result.text) > FASTEST * seconds

    def _repeats(self, compression_ratio: float) -> bool:
        """Whether a text repeats itself, whoever it may be that does."""
        most = self.plan.options.compression_ratio_threshold
        return most is not None and compression_ratio > most

    def _rank(self, result: DecodingResult, window: Window) -> tuple[bool, bool, float]:
        """What makes one failed attempt better than another."""
        return not result.is_loop, not self._is_too_much(result, window), result.avg_logprob

    def _most_tokens(self, window: Window) -> int:
        """Return how many tokens the speech in a window can fill."""
        seconds = self._speech.seconds_within(window.start, window.end)
        fixed = self.plan.decoding.sample_len or self.plan.model.dims.n_text_ctx // 2
        return min(fixed, int(TOKENS_PER_SECOND * seconds) + SPARE_TOKENS)

    # -- text without speech, and speech without text ----------------------------------------------------

    def _is_said(self, segment: Segment, language: str) -> bool:
        """Whether a segment stays; notes why it does not."""
        if not segment["text"].strip():
            return True
        span = segment["start"], segment["end"]
        evidence = Evidence(
            self._speech.seconds_within(*span),
            self._speech.highest_probability(*span),
            self._speech.mean_probability(*span),
            segment["no_speech_prob"],
            segment["avg_logprob"],
        )
        why = why_invented(segment["text"], language, evidence)
        if why is not None:
            self._note("dropped", span, segment["text"], why)
        return why is None

    def _fill_gaps(self, window: Window, reading: Reading) -> Generator[Job, Any, None]:
        """Decode again what is spoken in a window and has no text."""
        end = min(reading.seek / FRAMES_PER_SECOND, window.end)
        for gap in gaps(self._speech.spans, covered_by(reading.segments), window.start, end):
            if any(self._repeats(s["compression_ratio"]) and self._is_crowded(s) for s in reading.segments):
                self._note("uncovered", gap, "", "the text beside it repeats itself, perhaps as it was said here")
                continue
            recovered = yield from self._recover(gap, self._window_around(gap, window, reading.seek), reading.segments)
            reading.segments = sorted([*reading.segments, *recovered], key=lambda s: s["start"])

    def _recover(self, gap: Span, around: Window, others: list[Segment]) -> Generator[Job, Any, list[Segment]]:
        """Decode a stretch on its own; returns the segments that are good."""
        last_speech, n_findings = self._last_speech, len(self._findings)
        heard = yield from self._hear(around)
        result = yield from self._look(heard, self.plan.decoding.beam_size or SECOND_LOOK_BEAMS)
        segments: list[Segment] = []
        if self._passes(result, heard.window) and not is_silence(result, self.plan.options):
            segments = [s for s in self._read(heard, result).segments if s["text"].strip()]
            segments = [s for s in segments if self._is_said(s, heard.language)]
            self._last_speech = max(last_speech, self._last_speech)
        del self._findings[n_findings:]
        text = _text(segments)
        if not text:
            self._note("uncovered", gap, result.text, f"no text passed; log-probability {result.avg_logprob:.2f}")
        elif any(is_echo(text, other["text"]) and self._is_crowded(other) for other in others):
            self._note("uncovered", gap, text, "what was heard stands beside it already")
            return []
        else:
            self._note("recovered", gap, text, "speech without text, decoded on its own")
        return segments

    def _is_crowded(self, segment: Segment) -> bool:
        """Whether a segment's time holds too little speech for its text, so that some of it was said elsewhere."""
        return n_bytes(segment["text"]) > 12.0 * self._speech.seconds_within(segment["start"], segment["end"])


def _text(segments: list[Segment]) -> str:
    return "".join(segment["text"] for segment in segments)
