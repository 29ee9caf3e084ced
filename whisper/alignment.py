"""A text that is known already, each of its words at the time at which it is said.

The recording is cut at its pauses. What is heard in each part tells which words of the text belong to it, and these are
read off the attention, as the word times of a transcription are. Returns every word of the text and no other; does not
judge whether the text is right, but gives words for which there is no place the probability 0.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from . import timing
from .audio import FRAMES_PER_SECOND, N_FRAMES, TOKENS_PER_SECOND, pad_or_trim
from .decoding import verify_options
from .errors import AudioError, LanguageError, OptionError
from .features import Features
from .hearing import Hearing, hearing_for
from .language_names import code_of
from .languages import candidates
from .languages import detecting as detecting_language
from .matching import LEAST_LETTERS, MOST_LETTERS, SPARE_LETTERS, match, spread
from .options import APPEND_PUNCTUATIONS, PREPEND_PUNCTUATIONS, DecodingOptions, TranscribeOptions
from .pauses import stretches
from .results import Segment, Transcript, Word
from .segments import is_silence, keep_words_within
from .snapping import snap_words
from .timing import WordTiming, merge_punctuations, shorten_at_sentence_ends, typical_duration
from .tokenizer import WITHOUT_SPACES, Tokenizer, get_tokenizer, short_pieces
from .utils import compression_ratio
from .vad import Speech, VadOptions
from .vad import detecting as detecting_speech
from .windows import Clip
from .work import Direct, Job, Steps, pausing

if TYPE_CHECKING:
    import tiktoken

    from .audio import Source
    from .model import Whisper

LONGEST_PAUSE = 1.0  # seconds: at longer ones the recording is cut; short parts are heard well by weak models, too
TARGET = 2000  # frames: parts of speech without a pause, where they are longer than a window
BELIEVED = 0.6  # of a part's letters: where less was heard, it is cut again, and heard again
DOUBTED = 0.2  # mean probability of a part's words below which they are read off the attention phrase by phrase
KEPT = 16  # parts that stay encoded from the first time to the second
LETTERS_PER_SECOND = 15.0  # of words that are nowhere
LAST_BYTE = 255  # of the tokens that are single bytes, of which all others are made
LEAST_PROBABILITY = 1e-10  # whose logarithm is a number


def align(
    model: Whisper,
    audio: Source,
    text: str | Sequence[str],
    *,
    language: str | None = None,
    fp16: bool = True,
    vad_parameters: Mapping[str, Any] | str | None = None,
    prepend_punctuations: str = PREPEND_PUNCTUATIONS,
    append_punctuations: str = APPEND_PUNCTUATIONS,
    audio_track: int | str | None = None,
    container_time: bool = False,
) -> Transcript:
    """Find when each word of a known text is said.

    Parameters
    ----------
    model
        A Whisper model.
    audio
        One recording of any length: path, bytes, open file, or samples at 16 kHz; see `load_audio`.
    text
        What is said. Each line, or each item of a list, becomes a segment. The text and the recording may each have
        parts that the other lacks.
    language
        Code, locale or name of the language; by default, or with ``auto``, it is detected.
    fp16
        The fastest precision that the device does well; False is float32.
    vad_parameters
        How to find the speech; see `vad.VadOptions`.
    prepend_punctuations, append_punctuations
        Marks that are joined to the word after them and to the word before them.
    audio_track, container_time
        Of a file; see `load_audio`.

    Returns
    -------
    Transcript
        As `transcribe` returns it, with ``words``, that have all of the text in its order. Times never go back. A word
        for which there is no room in the speech has the probability 0, and lies between its neighbours.
        ``avg_logprob`` is that of the words; ``no_speech_prob`` and ``temperature`` are 0.

    Raises
    ------
    AudioError
        The recording cannot be read, or is empty. (A RuntimeError.)
    LanguageError
        The language is unknown. (A ValueError.)
    OptionError
        The text is empty or no text, or another option is wrong. (A ValueError.)
    """
    if isinstance(audio, (list, tuple)):
        raise AudioError("align() takes one recording, and not a list: call it for each")
    lines = _lines(text)
    options = TranscribeOptions(
        prepend_punctuations=prepend_punctuations,
        append_punctuations=append_punctuations,
        vad_parameters=vad_parameters,
        audio_track=audio_track,
        container_time=container_time,
    )
    decoding = DecodingOptions(fp16=fp16, stop_loops=True)
    verify_options(decoding)
    codes = _codes(model, language)
    hearing = hearing_for(model, fp16)

    def steps() -> Steps:
        features = yield from pausing(Features.reading(audio, model.dims.n_mels, **options.of_file()))
        if features.n_frames < 1:
            raise AudioError("the recording is empty: there is nothing to align the text with")
        vad_options = VadOptions.of(vad_parameters)
        speech = yield from pausing(detecting_speech(features.samples, features.n_samples, vad_options))
        detection = yield from detecting_language(hearing, features, 1, codes, speech.spans)
        aligning = _Alignment(model, hearing, options, replace(decoding, language=detection.language), features, speech)
        return (yield from aligning.steps(lines))

    engine = hearing.engine
    transcript: Transcript = (Direct(steps()) if engine is None else engine.submit(steps())).result()
    return transcript


def _lines(text: object) -> list[str]:
    """Return the text of each segment."""
    if isinstance(text, str):
        lines = [line for line in text.splitlines() if line.strip()]
    elif isinstance(text, Sequence) and not isinstance(text, (bytes, bytearray)):
        lines = list(text)
        if wrong := [i for i, line in enumerate(lines) if not isinstance(line, str)]:
            raise OptionError(f"text[{wrong[0]}] must be text, not {type(lines[wrong[0]]).__name__}")
    else:
        raise OptionError(f"text must be text, or a list of texts, not {type(text).__name__}")
    if not any(line.strip() for line in lines):
        raise OptionError("text is empty: give the words that are said")
    return lines


def _codes(model: Whisper, language: str | None) -> tuple[str, ...]:
    """Return the language, or those that it may be."""
    codes = candidates(model, None if code_of(language) is None else [str(language)])
    if model.is_multilingual:
        return codes
    if "en" not in codes:
        raise LanguageError(f"language={language!r}: the model knows only English")
    return ("en",)


@dataclass(eq=False)
class _Known:
    """A word of the text, with the punctuation that belongs to it."""

    word: str
    tokens: list[int]
    line: int  # the segment that it belongs to
    time: float = math.nan  # about when it is said, in seconds of speech; NaN where it is nowhere
    seek: int = 0  # frame at which the part begins in which it was found
    timed: Word | None = None

    @property
    def letters(self) -> int:
        return max(len(self.word.strip()), 1)


@dataclass(eq=False)
class _Part:
    """A stretch of the recording of 30 s at most."""

    clip: Clip
    begins: float  # in seconds of speech
    heard: list[tuple[str, float]] | None = None  # words, and about when, in seconds of speech
    encoded: Any = None  # what the `Hearing` makes of it, where that is kept


class _Alignment:
    """One text and one recording."""

    def __init__(
        self,
        model: Whisper,
        hearing: Hearing,
        options: TranscribeOptions,
        decoding: DecodingOptions,
        features: Features,
        speech: Speech,
    ) -> None:
        self.model, self.hearing, self.options, self.decoding = model, hearing, options, decoding
        self.features = features
        self._marks = options.prepend_punctuations + options.append_punctuations
        self._padding = VadOptions.of(options.vad_parameters).speech_pad_ms / 1000
        self.duration = features.n_frames / FRAMES_PER_SECOND
        # the text says that somebody speaks
        self.speech = speech if speech.clips(features.n_frames) else replace(speech, spans=((0.0, self.duration),))
        self._edges = [0.0, *(edge for span in self.speech.spans for edge in span)]
        spoken = ((b - a if i % 2 else 0.0) for i, (a, b) in enumerate(pairwise(self._edges)))
        self._spoken_at_edges = [0.0, *accumulate(spoken)]
        self.tokenizer = get_tokenizer(
            model.is_multilingual, num_languages=model.num_languages, language=decoding.language, task="transcribe"
        )
        self._encoding = _encoding_of(model, self.tokenizer)

    def steps(self, lines: Sequence[str]) -> Steps:
        """Place all words; returns the transcript."""
        words = [word for i, line in enumerate(lines) for word in self._split(i, line)]
        parts = self._parts()
        if len(parts) > 1 or len(self._finer(parts[0])) > 1 or not self._fits(words):
            yield from self._listen(parts)
            shares = self._assign(words, parts)
            cut = [self._finer(part) if share < BELIEVED else [part] for part, share in zip(parts, shares, strict=True)]
            parts = [part for finer in cut for part in finer]
            yield from self._listen(parts)
        self._assign(words, parts)
        position = 0.0
        for part, own in _grouped(words, parts):
            position = yield from self._place(part, own, position)
        _interpolate(words, self.duration)
        return self._transcript(words, len(lines))

    def _fits(self, words: Sequence[_Known]) -> bool:
        """Whether somebody may say so much in so much time."""
        letters, seconds = sum(word.letters for word in words), self._spoken(self.duration)
        return LEAST_LETTERS * seconds <= letters <= MOST_LETTERS * seconds + SPARE_LETTERS

    def _split(self, i: int, line: str) -> list[_Known]:
        """Split a line into words as a transcript has them."""
        line = line.strip()
        if line and self.decoding.language not in WITHOUT_SPACES:
            line = " " + line  # as the model has learned it
        tokens = self._encoding.encode(line, disallowed_special=())
        split = zip(*self.tokenizer.split_to_word_tokens(tokens), strict=True)
        timings = [WordTiming(word, own, 0, 0, 0) for word, own in split]
        merge_punctuations(timings, self.options.prepend_punctuations, self.options.append_punctuations)
        return [_Known(timing.word, timing.tokens, i) for timing in timings if timing.word]

    # -- parts of the recording ---------------------------------------------------------------------------

    def _parts(self) -> list[_Part]:
        """Cut the recording at its pauses, and where there are none, so that each part fits into a window."""
        clips: list[Clip] = []
        for begin, end in self.speech.clips(self.features.n_frames, LONGEST_PAUSE):
            if end - begin > N_FRAMES:
                loudness = self.features.loudness()[begin:end]
                cut = stretches(loudness, end - begin, TARGET, N_FRAMES, self.speech, begin)
                clips += [(begin + first, begin + stop) for first, stop in cut]
            else:
                clips.append((begin, end))
        return [self._part(clip) for clip in clips]

    def _finer(self, part: _Part) -> list[_Part]:
        """Cut a part at all of its pauses: one phrase alone is heard by weak models, too."""
        begin, end = part.clip
        spans = self.speech.within(begin / FRAMES_PER_SECOND, end / FRAMES_PER_SECOND)
        edges = [(math.floor(a * FRAMES_PER_SECOND), math.ceil(b * FRAMES_PER_SECOND)) for a, b in spans]
        return [part] if len(edges) < 2 else [self._part((max(a, begin), min(b, end))) for a, b in edges]

    def _part(self, clip: Clip) -> _Part:
        return _Part(clip, self._spoken(clip[0] / FRAMES_PER_SECOND))

    def _spoken(self, time: float) -> float:
        """Seconds of speech before a time."""
        return float(np.interp(time, self._edges, self._spoken_at_edges))

    def _encode(self, part: _Part) -> Generator[Job, Any, Any]:
        begin, end = part.clip
        mel = self.features.window(begin, end - begin)
        return (yield from self.hearing.encode(pad_or_trim(mel, N_FRAMES)))

    # -- about when each word is said ---------------------------------------------------------------------

    def _listen(self, parts: Sequence[_Part]) -> Generator[Job, Any, None]:
        """Transcribe each part by itself, unless that was done."""
        for i, part in enumerate(parts):
            if part.heard is not None:
                continue
            encoded = yield from self._encode(part)
            result = yield from self.hearing.decode(encoded, self.decoding)
            said = [] if is_silence(result, self.options) else result.tokens
            start = part.clip[0] / FRAMES_PER_SECOND
            part.heard = [(word, self._spoken(start + time)) for word, time in self._read(said)]
            if i < KEPT:
                part.encoded = encoded

    def _read(self, tokens: Sequence[int]) -> Iterator[tuple[str, float]]:
        """Return the words of a decoded window, and about when each is said, in seconds from its beginning."""
        begin, last = self.tokenizer.timestamp_begin, N_FRAMES / FRAMES_PER_SECOND
        stamps = [(i, (token - begin) / TOKENS_PER_SECOND) for i, token in enumerate(tokens) if token >= begin]
        for (i, start), (j, end) in pairwise([(-1, 0.0), *stamps, (len(tokens), last)]):
            words, _ = self.tokenizer.split_to_word_tokens([t for t in tokens[i + 1 : j] if t < self.tokenizer.eot])
            edges = [0, *accumulate(map(len, words))]
            for word, (a, b) in zip(words, pairwise(edges), strict=True):
                yield word, start + (end - start) * (a + b) / (2 * edges[-1])

    def _assign(self, words: Sequence[_Known], parts: Sequence[_Part]) -> list[float]:
        """Find out about when each word is said: where it was heard, or so long after others as speaking takes.

        Returns for each part which share of its letters was heard there.
        """
        heard = [item for part in parts for item in part.heard or ()]
        found = match([word.word for word in words], [word for word, _ in heard])
        times = np.maximum.accumulate([time for _, time in heard] or [0.0])
        anchors = np.where(found >= 0, times[found], math.nan)
        spoken = spread([word.letters for word in words], anchors, self._spoken_at_edges[-1])
        for word, time in zip(words, spoken.tolist(), strict=True):
            word.time = time
        is_heard = dict(zip(words, found >= 0, strict=True))
        shares = dict.fromkeys(parts, 1.0)
        for part, own in _grouped(words, parts):
            shares[part] = sum(w.letters for w in own if is_heard[w]) / sum(w.letters for w in own)
        return list(shares.values())

    # -- when exactly -------------------------------------------------------------------------------------

    def _place(self, part: _Part, words: Sequence[_Known], position: float) -> Generator[Job, Any, float]:
        """Give the words of a part their times, all behind `position`; returns where the last one ends."""
        encoded = part.encoded if part.encoded is not None else (yield from self._encode(part))
        room = self.model.dims.n_text_ctx - len(self.tokenizer.sot_sequence) - 2
        words = [w for w, n in zip(words, accumulate(len(w.tokens) for w in words), strict=True) if n <= room]
        begin, end = part.clip
        alignment = timing.find_alignment(
            self.model,
            self.tokenizer,
            [token for word in words for token in word.tokens],
            num_frames=end - begin,
            **self.hearing.to_align(encoded),
        )
        if not alignment:
            return position
        finer = self._finer(part)
        if len(finer) > 1 and np.mean([t.probability for t in alignment]) < DOUBTED:
            for piece, own in _grouped(words, finer):
                position = yield from self._place(piece, own, position)
            return position
        shorten_at_sentence_ends(alignment, 2 * typical_duration(alignment))
        start, stop = begin / FRAMES_PER_SECOND, end / FRAMES_PER_SECOND
        for word, found in zip(words, _of_words(words, alignment), strict=True):
            spoken = [t for t in found if t.word.strip() not in self._marks] or found
            word.seek = begin
            word.timed = {
                "word": word.word,
                "start": start + spoken[0].start,
                "end": start + spoken[-1].end,
                "probability": float(np.mean([t.probability for t in spoken])),
            }
        timed: list[Any] = [{"words": [word.timed for word in words]}]
        snap_words(timed, self.speech.spans, max(start, position), stop, self._padding)
        last: float = timed[0]["end"]
        return last

    # -- what comes out -----------------------------------------------------------------------------------

    def _transcript(self, words: Sequence[_Known], n_lines: int) -> Transcript:
        segments: list[Segment] = []
        position, seek = 0.0, 0
        for i in range(n_lines):
            own = [word for word in words if word.line == i]
            timed = [word.timed for word in own if word.timed is not None]
            seek = max([seek, *(word.seek for word in own[:1])])
            start, position = (timed[0]["start"], timed[-1]["end"]) if timed else (position, position)
            text = "".join(word.word for word in own)
            segment: Segment = {
                "id": i,
                "seek": seek,
                "start": start,
                "end": position,
                "text": text,
                "tokens": [token for word in own for token in word.tokens],
                "temperature": 0.0,
                "avg_logprob": _mean_logprob(own),
                "compression_ratio": compression_ratio(text) if text else 0.0,
                "no_speech_prob": 0.0,
                "words": timed,
            }
            segments.append(segment)
        keep_words_within(segments, 0.0, self.duration)
        text = "".join(segment["text"] for segment in segments)
        return {"text": text, "segments": segments, "language": self.decoding.language or "en"}


def _encoding_of(model: Whisper, tokenizer: Tokenizer) -> tiktoken.Encoding:
    """Return the vocabulary that a model writes with: one from a used vocabulary has the same row for all other tokens.

    The bundled model is such a one; of words in tokens that it has never written it hears nothing.
    """
    column = model.decoder.token_embedding.weight[: tokenizer.eot, 0].detach().float().cpu().numpy()
    _, kinds, counts = np.unique(column, return_inverse=True, return_counts=True)
    if not len(column) / 2 < counts.max() < len(column):
        return tokenizer.encoding
    last = int(np.flatnonzero(kinds != counts.argmax())[-1])
    return short_pieces(tokenizer.encoding, max(last, LAST_BYTE) + 1)


def _grouped(words: Sequence[_Known], parts: Sequence[_Part]) -> Iterator[tuple[_Part, list[_Known]]]:
    """Return the parts in which words are said, and these."""
    begins = [part.begins for part in parts]
    placed = [word for word in words if not math.isnan(word.time)]
    for i, own in groupby(placed, lambda word: max(bisect_right(begins, word.time) - 1, 0)):
        yield parts[i], list(own)


def _of_words(words: Sequence[_Known], alignment: Sequence[WordTiming]) -> list[list[WordTiming]]:
    """Return the timings that have tokens of each word: one, or more where punctuation was joined to it."""
    edges = [0, *accumulate(len(t.tokens) for t in alignment)]
    spans = pairwise([0, *accumulate(len(word.tokens) for word in words)])
    return [list(alignment[bisect_right(edges, a) - 1 : bisect_left(edges, b)]) for a, b in spans]


def _interpolate(words: Sequence[_Known], duration: float) -> None:
    """Give the words that are nowhere the time between their neighbours, and the probability 0."""
    known = [-1, *(i for i, word in enumerate(words) if word.timed is not None), len(words)]
    for a, b in pairwise(known):
        run = words[a + 1 : b]
        letters = [0, *accumulate(word.letters for word in run)]
        before = words[a].timed if a >= 0 else None
        behind = words[b].timed if b < len(words) else None
        start, end = before["end"] if before else 0.0, behind["start"] if behind else duration
        needed = letters[-1] / LETTERS_PER_SECOND
        if before and not behind:
            end = max(start, min(end, start + needed))
        elif behind and not before:
            start = max(start, end - needed)
        times = [round(start + (end - start) * n / letters[-1], 2) for n in letters] if run else []
        for word, (first, last) in zip(run, pairwise(times), strict=True):
            word.timed = {"word": word.word, "start": first, "end": last, "probability": 0.0}


def _mean_logprob(words: Sequence[_Known]) -> float:
    """Mean over the tokens, as far as the words' probabilities tell."""
    total = sum(len(w.tokens) * math.log(max(w.timed["probability"], LEAST_PROBABILITY)) for w in words if w.timed)
    return total / max(sum(len(word.tokens) for word in words), 1)
