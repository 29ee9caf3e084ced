"""Forced alignment: the time of each word of a text that is known.

The recording is cut into chunks at its pauses. Each chunk is transcribed; matching the result with
the text shows which words belong to the chunk. Their times are then computed from cross-attention,
like the word times of a transcription. Returns every word of the text and no other. Does not judge
whether the text is right, but gives words for which there is no place the probability 0.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import timing
from ..audio import FRAMES_PER_SECOND, N_FRAMES, TOKENS_PER_SECOND, pad_or_trim
from ..decoding import verify_options
from ..engine.operations import cooperate
from ..errors import AudioError, LanguageError, OptionError
from ..options.language_names import code_of
from ..options.transcription import APPEND_PUNCTUATIONS, PREPEND_PUNCTUATIONS, DecodingOptions, TranscribeOptions
from ..results import Segment, Transcript, Word
from ..spans import FrameRange
from ..speech.features import Features
from ..speech.pauses import cut_at_pauses
from ..speech.rates import MAX_LETTERS_PER_SECOND, MIN_LETTERS_PER_SECOND, TYPICAL_LETTERS_PER_SECOND
from ..speech.vad import Speech, VadOptions, detecting_speech
from ..timing import WordTiming, merge_punctuations, shorten_at_sentence_ends, typical_duration
from ..tokenizer import WITHOUT_SPACES, Tokenizer, get_tokenizer, short_pieces
from ..transcription.backends import Backend, backend_for
from ..transcription.languages import candidates, detecting_language
from ..transcription.segments import is_silence, keep_words_within
from ..transcription.word_snapping import delay_of, snap_words, undo_delay
from ..utils import compression_ratio
from .text_matching import SPARE_LETTERS, interpolate_times, match

if TYPE_CHECKING:
    import tiktoken

    from ..audio import Source
    from ..model import Whisper

# Weak models transcribe short chunks well, too, so the recording is cut at many pauses.
MIN_CUT_PAUSE = 1.0  # seconds
TARGET_FRAMES = 2000  # of chunks of speech without a pause, where it is longer than a window
MIN_RECOGNISED_SHARE = 0.6  # of a chunk's letters: with less, it is cut and transcribed again
MIN_MEAN_PROBABILITY = 0.2  # of a chunk's words: with less, they are aligned phrase by phrase
MAX_KEPT_WINDOWS = 16  # chunks that stay encoded between transcription and alignment
LAST_BYTE = 255  # the last of the tokens that are single bytes, of which all others are made
MIN_PROBABILITY = 1e-10  # so that the logarithm is finite


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
    """Find the time of each word of a known text (forced alignment).

    Parameters
    ----------
    model
        A Whisper model.
    audio
        One recording of any length: path, bytes, open file, or samples at 16 kHz; see `load_audio`.
    text
        The words spoken. Each line, or each item of a list, becomes a segment. The text and the
        recording may each have parts that the other lacks.
    language
        Code, locale or name of the language; by default, or with ``auto``, it is detected.
    fp16
        Use the fastest precision that the device supports well; False is float32.
    vad_parameters
        Settings of voice activity detection; see `vad.VadOptions`.
    prepend_punctuations, append_punctuations
        Marks that are joined to the word after them and to the word before them.
    audio_track, container_time
        Of a file; see `load_audio`.

    Returns
    -------
    Transcript
        As `transcribe` returns it, with ``words`` that contain the whole text in its order. Times
        never go back. A word for which the speech has no room has the probability 0, and a time
        between its neighbours. ``avg_logprob`` is that of the words; ``no_speech_prob`` and
        ``temperature`` are 0.

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
    lines = _segment_texts(text)
    options = TranscribeOptions(
        prepend_punctuations=prepend_punctuations,
        append_punctuations=append_punctuations,
        vad_parameters=vad_parameters,
        audio_track=audio_track,
        container_time=container_time,
    )
    decoding = DecodingOptions(fp16=fp16, stop_loops=True)
    verify_options(decoding)
    codes = _candidate_languages(model, language)
    backend = backend_for(model, fp16)

    async def steps() -> Transcript:
        features = await cooperate(Features.reading(audio, model.dims.n_mels, **options.of_file()))
        if features.n_frames < 1:
            raise AudioError("the recording is empty: there is nothing to align the text with")
        vad_options = VadOptions.of(vad_parameters)
        speech = await cooperate(detecting_speech(features.samples, features.n_samples, vad_options))
        detection = await detecting_language(backend, features, 1, codes, speech.spans)
        options_with_language = replace(decoding, language=detection.language)
        alignment = _Alignment(model, backend, options, options_with_language, features, speech)
        return await alignment.steps(lines)

    transcript: Transcript = backend.submit(steps()).result()
    return transcript


def _segment_texts(text: object) -> list[str]:
    """Return the text of each segment."""
    if isinstance(text, str):
        lines = [line for line in text.splitlines() if line.strip()]
    elif isinstance(text, Sequence) and not isinstance(text, (bytes, bytearray)):
        lines = list(text)
        for i, line in enumerate(lines):
            if not isinstance(line, str):
                raise OptionError(f"text[{i}] must be text, not {type(line).__name__}")
    else:
        raise OptionError(f"text must be text, or a list of texts, not {type(text).__name__}")
    if not any(line.strip() for line in lines):
        raise OptionError("text is empty: give the words that are spoken")
    return lines


def _candidate_languages(model: Whisper, language: str | None) -> tuple[str, ...]:
    """Return the language that was given, or all that the model can detect."""
    codes = candidates(model, None if code_of(language) is None else [str(language)])
    if model.is_multilingual:
        return codes
    if "en" not in codes:
        raise LanguageError(f"language={language!r}: the model is English-only")
    return ("en",)


@dataclass(eq=False)
class _KnownWord:
    """A word of the text, with the punctuation that belongs to it."""

    word: str
    tokens: list[int]
    line: int  # the segment that it belongs to
    time: float = math.nan  # estimate, in seconds of speech; NaN for a word without a place
    seek: int = 0  # first frame of the chunk that it was aligned in
    timed: Word | None = None  # with its final times

    @property
    def letters(self) -> int:
        return max(len(self.word.strip()), 1)


@dataclass(eq=False)
class _Chunk:
    """A part of the recording of at most 30 s."""

    clip: FrameRange
    start: float  # in seconds of speech
    # words, and estimates of their times, in seconds of speech
    recognised: list[tuple[str, float]] | None = None
    encoded: Any = None  # the encoded window of the `Backend`, where it is kept


class _Alignment:
    """The forced alignment of one text with one recording."""

    def __init__(
        self,
        model: Whisper,
        backend: Backend,
        options: TranscribeOptions,
        decoding: DecodingOptions,
        features: Features,
        speech: Speech,
    ) -> None:
        self.model, self.backend, self.options, self.decoding = model, backend, options, decoding
        self.features = features
        self._marks = options.prepend_punctuations + options.append_punctuations
        self._padding = VadOptions.of(options.vad_parameters).speech_pad_ms / 1000
        self.duration = features.n_frames / FRAMES_PER_SECOND
        if not speech.clips(features.n_frames):  # there is a text, so there is speech
            speech = replace(speech, spans=((0.0, self.duration),))
        self.speech = speech
        self._edges = [0.0, *(edge for span in self.speech.spans for edge in span)]
        seconds = ((b - a if i % 2 else 0.0) for i, (a, b) in enumerate(pairwise(self._edges)))
        self._speech_before_edges = [0.0, *accumulate(seconds)]
        self.tokenizer = get_tokenizer(
            model.is_multilingual, num_languages=model.num_languages, language=decoding.language, task="transcribe"
        )
        self._encoding = _encoding_of(model, self.tokenizer)

    async def steps(self, lines: Sequence[str]) -> Transcript:
        """Align all words; returns the transcript."""
        words = [word for i, line in enumerate(lines) for word in self._split_into_words(i, line)]
        chunks = self._chunks()
        letters, seconds = sum(word.letters for word in words), self._speech_before(self.duration)
        most = MAX_LETTERS_PER_SECOND * seconds + SPARE_LETTERS
        is_plausible = MIN_LETTERS_PER_SECOND * seconds <= letters <= most
        # one phrase with a plausible text needs no transcription: all words belong to it
        if len(chunks) > 1 or len(self._phrases(chunks[0])) > 1 or not is_plausible:
            await self._transcribe(chunks)
            shares = self._estimate_times(words, chunks)
            cut = [
                self._phrases(chunk) if share < MIN_RECOGNISED_SHARE else [chunk]
                for chunk, share in zip(chunks, shares, strict=True)
            ]
            chunks = [phrase for phrases in cut for phrase in phrases]
            await self._transcribe(chunks)
        self._estimate_times(words, chunks)
        position = 0.0
        for chunk, own in _by_chunk(words, chunks):
            position = await self._align_chunk(chunk, own, position)
        _interpolate(words, self.duration)
        return self._transcript(words, len(lines))

    def _split_into_words(self, i: int, line: str) -> list[_KnownWord]:
        """Split a line into words as a transcript has them."""
        line = line.strip()
        if line and self.decoding.language not in WITHOUT_SPACES:
            line = " " + line  # as in the model's training texts
        tokens = self._encoding.encode(line, disallowed_special=())
        split = zip(*self.tokenizer.split_to_word_tokens(tokens), strict=True)
        timings = [WordTiming(word, own, 0, 0, 0) for word, own in split]
        merge_punctuations(timings, self.options.prepend_punctuations, self.options.append_punctuations)
        return [_KnownWord(timing.word, timing.tokens, i) for timing in timings if timing.word]

    # -- chunks of the recording -------------------------------------------------------------------

    def _chunks(self) -> list[_Chunk]:
        """Cut the recording at its pauses, and long speech so that it fits into windows."""
        clips: list[FrameRange] = []
        for begin, end in self.speech.clips(self.features.n_frames, MIN_CUT_PAUSE):
            if end - begin > N_FRAMES:
                loudness = self.features.loudness()[begin:end]
                cut = cut_at_pauses(loudness, end - begin, TARGET_FRAMES, N_FRAMES, self.speech, begin)
                clips += [(begin + first, begin + stop) for first, stop in cut]
            else:
                clips.append((begin, end))
        return [self._chunk(clip) for clip in clips]

    def _phrases(self, chunk: _Chunk) -> list[_Chunk]:
        """Cut a chunk at all of its pauses: weak models transcribe single phrases well, too."""
        begin, end = chunk.clip
        spans = self.speech.within(begin / FRAMES_PER_SECOND, end / FRAMES_PER_SECOND)
        edges = [(math.floor(a * FRAMES_PER_SECOND), math.ceil(b * FRAMES_PER_SECOND)) for a, b in spans]
        return [chunk] if len(edges) < 2 else [self._chunk((max(a, begin), min(b, end))) for a, b in edges]

    def _chunk(self, clip: FrameRange) -> _Chunk:
        return _Chunk(clip, self._speech_before(clip[0] / FRAMES_PER_SECOND))

    def _speech_before(self, time: float) -> float:
        """Return the seconds of speech before a time."""
        return float(np.interp(time, self._edges, self._speech_before_edges))

    async def _encode(self, chunk: _Chunk) -> Any:
        begin, end = chunk.clip
        mel = self.features.window(begin, end - begin)
        return await self.backend.encode(pad_or_trim(mel, N_FRAMES))

    # -- estimated times ---------------------------------------------------------------------------

    async def _transcribe(self, chunks: Sequence[_Chunk]) -> None:
        """Transcribe each chunk on its own, unless that is done."""
        for i, chunk in enumerate(chunks):
            if chunk.recognised is not None:
                continue
            encoded = await self._encode(chunk)
            result = await self.backend.decode(encoded, self.decoding)
            tokens = [] if is_silence(result, self.options) else result.tokens
            start = chunk.clip[0] / FRAMES_PER_SECOND
            timed = self._timed_words(tokens)
            chunk.recognised = [(word, self._speech_before(start + time)) for word, time in timed]
            if i < MAX_KEPT_WINDOWS:
                chunk.encoded = encoded

    def _timed_words(self, tokens: Sequence[int]) -> Iterator[tuple[str, float]]:
        """Yield the words of a decoded window, with estimates of their times in its seconds."""
        begin, last = self.tokenizer.timestamp_begin, N_FRAMES / FRAMES_PER_SECOND
        stamps = [(i, (token - begin) / TOKENS_PER_SECOND) for i, token in enumerate(tokens) if token >= begin]
        for (i, start), (j, end) in pairwise([(-1, 0.0), *stamps, (len(tokens), last)]):
            words, _ = self.tokenizer.split_to_word_tokens([t for t in tokens[i + 1 : j] if t < self.tokenizer.eot])
            edges = [0, *accumulate(map(len, words))]
            for word, (a, b) in zip(words, pairwise(edges), strict=True):
                yield word, start + (end - start) * (a + b) / (2 * edges[-1])

    def _estimate_times(self, words: Sequence[_KnownWord], chunks: Sequence[_Chunk]) -> list[float]:
        """Estimate the time of each word from the recognised words that match.

        Returns, for each chunk, the share of its letters that were recognised.
        """
        recognised = [item for chunk in chunks for item in chunk.recognised or ()]
        matches = match([word.word for word in words], [word for word, _ in recognised])
        times = np.maximum.accumulate([time for _, time in recognised] or [0.0])
        anchors = np.where(matches >= 0, times[matches], math.nan)
        estimates = interpolate_times([word.letters for word in words], anchors, self._speech_before_edges[-1])
        for word, time in zip(words, estimates.tolist(), strict=True):
            word.time = time
        is_recognised = dict(zip(words, matches >= 0, strict=True))
        shares = dict.fromkeys(chunks, 1.0)
        for chunk, own in _by_chunk(words, chunks):
            shares[chunk] = sum(w.letters for w in own if is_recognised[w]) / sum(w.letters for w in own)
        return list(shares.values())

    # -- final times -------------------------------------------------------------------------------

    async def _align_chunk(self, chunk: _Chunk, words: Sequence[_KnownWord], position: float) -> float:
        """Align the words of a chunk, none before `position`; returns the end of the last one."""
        encoded = chunk.encoded if chunk.encoded is not None else (await self._encode(chunk))
        room = self.model.dims.n_text_ctx - len(self.tokenizer.sot_sequence) - 2
        words = [w for w, n in zip(words, accumulate(len(w.tokens) for w in words), strict=True) if n <= room]
        begin, end = chunk.clip
        tokens = [token for word in words for token in word.tokens]
        inputs = await self.backend.alignment_inputs(encoded, self.tokenizer, tokens)
        alignment = timing.find_alignment(self.model, self.tokenizer, tokens, num_frames=end - begin, **inputs)
        if not alignment:
            return position
        phrases = self._phrases(chunk)
        if len(phrases) > 1 and np.mean([t.probability for t in alignment]) < MIN_MEAN_PROBABILITY:
            for phrase, own in _by_chunk(words, phrases):
                position = await self._align_chunk(phrase, own, position)
            return position
        shorten_at_sentence_ends(alignment, 2 * typical_duration(alignment))
        start, stop = begin / FRAMES_PER_SECOND, end / FRAMES_PER_SECOND
        for word, timings in zip(words, _timings_by_word(words, alignment), strict=True):
            spoken = [t for t in timings if t.word.strip() not in self._marks] or timings
            word.seek = begin
            word.timed = {
                "word": word.word,
                "start": start + spoken[0].start,
                "end": start + spoken[-1].end,
                "probability": float(np.mean([t.probability for t in spoken])),
            }
        timed: list[Any] = [{"words": [word.timed for word in words]}]
        undo_delay(timed, delay_of(self.model.dims), start, stop)
        snap_words(timed, self.speech.spans, max(start, position), stop, self._padding)
        last: float = timed[0]["end"]
        return last

    # -- the transcript ----------------------------------------------------------------------------

    def _transcript(self, words: Sequence[_KnownWord], n_lines: int) -> Transcript:
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
    """Return the encoding into the tokens that a model was trained on.

    A model that was trained on a part of the vocabulary, like the bundled one, has the same
    embedding for all other tokens, and recognises no word that is encoded into those.
    """
    column = model.decoder.token_embedding.weight[: tokenizer.eot, 0].detach().float().cpu().numpy()
    _, kinds, counts = np.unique(column, return_inverse=True, return_counts=True)
    if not len(column) / 2 < counts.max() < len(column):
        return tokenizer.encoding
    last = int(np.flatnonzero(kinds != counts.argmax())[-1])
    return short_pieces(tokenizer.encoding, max(last, LAST_BYTE) + 1)


def _by_chunk(words: Sequence[_KnownWord], chunks: Sequence[_Chunk]) -> Iterator[tuple[_Chunk, list[_KnownWord]]]:
    """Yield the chunks that have words, each with its words, by their estimated times."""
    starts = [chunk.start for chunk in chunks]
    placed = [word for word in words if not math.isnan(word.time)]
    for i, own in groupby(placed, lambda word: max(bisect_right(starts, word.time) - 1, 0)):
        yield chunks[i], list(own)


def _timings_by_word(words: Sequence[_KnownWord], alignment: Sequence[WordTiming]) -> list[list[WordTiming]]:
    """Return the timings of each word: one, or more where punctuation was joined to it."""
    edges = [0, *accumulate(len(t.tokens) for t in alignment)]
    spans = pairwise([0, *accumulate(len(word.tokens) for word in words)])
    return [list(alignment[bisect_right(edges, a) - 1 : bisect_left(edges, b)]) for a, b in spans]


def _interpolate(words: Sequence[_KnownWord], duration: float) -> None:
    """Give words without a place the time between their neighbours, and the probability 0."""
    known = [-1, *(i for i, word in enumerate(words) if word.timed is not None), len(words)]
    for a, b in pairwise(known):
        run = words[a + 1 : b]
        letters = [0, *accumulate(word.letters for word in run)]
        before = words[a].timed if a >= 0 else None
        after = words[b].timed if b < len(words) else None
        start, end = before["end"] if before else 0.0, after["start"] if after else duration
        needed = letters[-1] / TYPICAL_LETTERS_PER_SECOND
        if before and not after:
            end = max(start, min(end, start + needed))
        elif after and not before:
            start = max(start, end - needed)
        times = [round(start + (end - start) * n / letters[-1], 2) for n in letters] if run else []
        for word, (first, last) in zip(run, pairwise(times), strict=True):
            word.timed = {"word": word.word, "start": first, "end": last, "probability": 0.0}


def _mean_logprob(words: Sequence[_KnownWord]) -> float:
    """Return the mean over the tokens of the log-probabilities of their words."""
    total = sum(len(w.tokens) * math.log(max(w.timed["probability"], MIN_PROBABILITY)) for w in words if w.timed)
    return total / max(sum(len(word.tokens) for word in words), 1)
