"""Word times, read off the decoder's cross-attention by dynamic time warping.

The text is given; what is asked is when each word was said. The heads that follow the audio best were measured
for each published model (`Whisper.alignment_heads`). Needs neither numba nor a second run of the encoder.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import compat
from .device.lazy_torch import Tensor, as_tensor, n_threads, torch
from .device.lazy_torch import functional as F
from .device.torch_state import clean_state
from .engine.engine import engine_for
from .engine.operations import Attend, encode_operation, is_encoded, is_window
from .errors import ShapeError
from .options.transcription import APPEND_PUNCTUATIONS, PREPEND_PUNCTUATIONS
from .results import Segment, Word
from .runtime import choice
from .runtime.native import kernels
from .runtime.native.pointers import address
from .spans import HOP_LENGTH as HOP_LENGTH
from .spans import SAMPLE_RATE as SAMPLE_RATE
from .spans import TOKENS_PER_SECOND as TOKENS_PER_SECOND
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from .model import Whisper
    from .runtime.interface import EncodedWindow

SENTENCE_END_MARKS = ".。!！?？"
MAX_MEDIAN_DURATION = 0.7  # seconds; a slower typical word than this is not believed

KERNEL_WIDTH = 7  # of the compiled median filter; the default of `find_alignment`

DIAGONAL, UP, LEFT = 0, 1, 2  # where a cell of the warping path comes from


# ---------------------------------------------------------------------------------------------------------
# Arrays
# ---------------------------------------------------------------------------------------------------------


def median_filter(x: Tensor, filter_width: int) -> Tensor:
    """Return the running median along the last dimension, with the edges mirrored.

    Parameters
    ----------
    x
        Any shape; returned unchanged where the last dimension is no longer than half the filter.
    filter_width
        Odd number of elements.
    """
    if filter_width < 1 or filter_width % 2 == 0:
        raise ShapeError(f"`filter_width` should be an odd number, not {filter_width}")
    half = filter_width // 2
    if x.shape[-1] <= half:
        return x
    flat = x.reshape(1, -1, x.shape[-1])  # reflection wants a batch and channels
    padded = F.pad(flat, (half, half), mode="reflect")
    if padded.isnan().any():  # comparing would spread NaN over its neighbours; sorting puts it last
        return padded.unfold(-1, filter_width, 1).sort(dim=-1)[0][..., half].reshape(x.shape)
    if filter_width == KERNEL_WIDTH and x.device.type == "cpu" and x.dtype == torch.float32 and kernels.load():
        return _compiled_median(flat[0]).reshape(x.shape)
    # few rows at a time stay in the processor's cache, and are too small a work for threads to wait for each other
    blocks = [_running_median(padded[0, i : i + 16], filter_width) for i in range(0, padded.shape[1], 16)]
    return torch.cat(blocks).reshape(x.shape)


def _compiled_median(x: Tensor) -> Tensor:
    """Return the median of each `KERNEL_WIDTH` neighbours in the rows of `x`, ``(n_rows, n)``."""
    library, x = kernels.load(), x.contiguous()
    assert library is not None
    out = torch.empty_like(x)
    pointers = [ctypes.c_void_p(address(tensor, torch.float32, x.numel(), "scores")) for tensor in (x, out)]
    if library.sotto_median_filter(*pointers, *x.shape, torch.get_num_threads()):
        raise MemoryError("not enough memory for the median filter")
    return out


def _running_median(padded: Tensor, width: int) -> Tensor:
    """Return the median of each `width` neighbours in the last dimension.

    Forgetful selection on whole arrays: of half the neighbours and two more, neither the least nor the greatest
    can be the median; forget both, take in one more, and so on. For width 7 that is 15 comparisons of shifted
    arrays, about ten times quicker than sorting each window.
    """
    n = padded.shape[-1] - width + 1
    waiting = [padded[..., i : i + n] for i in range(width)]
    held, waiting = waiting[: width // 2 + 2], waiting[width // 2 + 2 :]
    while len(held) > 1:
        for i in range(len(held) - 1):  # the greatest to the end
            held[i], held[i + 1] = torch.minimum(held[i], held[i + 1]), torch.maximum(held[i], held[i + 1])
        for i in range(len(held) - 2, 0, -1):  # the least to the front
            held[i - 1], held[i] = torch.minimum(held[i - 1], held[i]), torch.maximum(held[i - 1], held[i])
        held = held[1:-1] + waiting[:1]
        waiting = waiting[1:]
    return held[0]


def backtrace(trace: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Follow the path back from the last cell of a trace, ``(N + 1, M + 1)``.

    Returns
    -------
    path
        ``(2, n_steps)``: row and column indices of the warped matrix, from first to last.
    """
    i, j = trace.shape[0] - 1, trace.shape[1] - 1
    rows = trace.tolist()
    path = []
    while i > 0 or j > 0:
        path.append((i - 1, j - 1))
        step = LEFT if i == 0 else UP if j == 0 else rows[i][j]  # along the border there is one way
        if step not in (DIAGONAL, UP, LEFT):
            raise ShapeError(f"trace[{i}, {j}] is {step}, and must be 0 (diagonal), 1 (up) or 2 (left)")
        i -= step != LEFT
        j -= step != UP
    steps: npt.NDArray[np.int64] = np.array(path[::-1], dtype=np.int64).reshape(-1, 2).T
    return steps


def dtw_cpu(x: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Find the cheapest monotonic path through a cost matrix, ``(N, M)``.

    The cells of an anti-diagonal depend only on the two before it, so each is one step of whole arrays: 1 to 2
    thousand steps for a window, instead of half a million cells. Costs are kept in float32, and every
    tie goes left, even where left is dearer than the two that tie: the original's rule, hence the original's path.

    Returns
    -------
    path
        ``(2, n_steps)``; see `backtrace`.
    """
    n, m = x.shape
    if (library := kernels.load()) is not None:
        return _compiled_path(library, np.ascontiguousarray(x, dtype=np.float64))
    skewed = np.full((n + m + 1, n + 1), np.inf)  # skewed[i + j, i] is the cost of cell (i, j), from 1
    for i in range(1, n + 1):
        skewed[i + 1 : i + 1 + m, i] = x[i - 1]
    steps = np.full((n + m + 1, n + 1), LEFT, dtype=np.int8)

    before_last = np.full(n + 1, np.inf, dtype=np.float32)  # the diagonal i + j = d - 2, by i
    before_last[0] = 0
    last = np.full(n + 1, np.inf, dtype=np.float32)
    for d in range(2, n + m + 1):
        diagonal, up, left = before_last[:-1], last[:-1], last[1:]
        take_diagonal = (diagonal < up) & (diagonal < left)
        take_up = (up < diagonal) & (up < left)
        best = np.where(take_diagonal, diagonal, np.where(take_up, up, left))
        row = steps[d, 1:]
        row[take_up] = UP
        row[take_diagonal] = DIAGONAL
        current = np.full(n + 1, np.inf, dtype=np.float32)
        current[1:] = skewed[d, 1:] + best
        before_last, last = last, current

    rows, columns = np.ogrid[: n + 1, : m + 1]
    return backtrace(steps[rows + columns, rows])


def _compiled_path(library: ctypes.CDLL, x: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return what `dtw_cpu` returns, from the compiled kernels."""
    n, m = x.shape
    path, length = np.empty((2, n + m), dtype=np.int32), ctypes.c_int32()
    pointers = [ctypes.c_void_p(address(axis, np.int32, n + m, "the path")) for axis in path]
    costs = ctypes.c_void_p(address(x, np.float64, n * m, "costs"))
    if library.sotto_dtw(costs, n, m, *pointers, ctypes.byref(length)):
        raise MemoryError(f"not enough memory for the path through {n} x {m} cells")
    return path[:, : length.value][:, ::-1].astype(np.int64)


def dtw_cuda(x: Tensor, BLOCK_SIZE: int = 1024) -> npt.NDArray[np.int64]:
    """Find the path for a matrix on a CUDA device; its few hundred kilobytes are warped on the CPU.

    `BLOCK_SIZE` is kept for callers of the original, whose kernel needed it.
    """
    return dtw_cpu(x.double().cpu().numpy())


def dtw(x: Tensor) -> npt.NDArray[np.int64]:
    """Find the cheapest monotonic path through a cost matrix, ``(N, M)``, on whatever device."""
    if not isinstance(x, Tensor):
        return dtw_cpu(x.astype(np.float64))
    return dtw_cuda(x) if x.is_cuda else dtw_cpu(x.cpu().double().numpy())


# ---------------------------------------------------------------------------------------------------------
# Alignment
# ---------------------------------------------------------------------------------------------------------


@dataclass
class WordTiming:
    """A word, its tokens, and when it was said, in seconds from the start of the window."""

    word: str
    tokens: list[int]
    start: float
    end: float
    probability: float


def find_alignment(
    model: Whisper,
    tokenizer: Tokenizer,
    text_tokens: list[int],
    mel: Tensor,
    num_frames: int,
    *,
    medfilt_width: int = 7,
    qk_scale: float = 1.0,
    attention: tuple[Tensor, Tensor] | None = None,
) -> list[WordTiming]:
    """Place each word of a text in a window.

    Parameters
    ----------
    model, tokenizer
        As the text was decoded with.
    text_tokens
        The text, without timestamps.
    mel
        The window: spectrogram ``(n_mels, 3000)``, or audio features, which spares the encoder.
    num_frames
        Frames of content; no word is placed behind them.
    medfilt_width
        Width of the median filter over the attention, in steps of 20 ms.
    qk_scale
        Factor on the attention scores before the softmax.
    attention
        The answer to `attend_operation`, where it is known; else the exact engine is asked, or the model's own modules
        where hooks or replaced parts need them.

    Returns
    -------
    list of WordTiming
        In order; together they have all tokens of the text. Empty for an empty text.
    """
    if not text_tokens:
        return []
    if attention is None:
        attention = _engine_attention(model, tokenizer, text_tokens, mel)
    if attention is not None:
        qk, logits = attention
        text_probs = _probabilities(logits, tokenizer.eot, text_tokens)
    else:
        qk, text_probs = _attend(model, tokenizer, text_tokens, mel)
    weights = _normalize_attention(qk, max(1, num_frames // 2), medfilt_width, qk_scale)  # (n_tokens, n_positions)
    matrix = weights[len(tokenizer.sot_sequence) : -1]  # (no_timestamps and text, n_positions)
    text_indices, time_indices = dtw(-matrix)

    words, word_tokens = tokenizer.split_to_word_tokens([*text_tokens, tokenizer.eot])
    if len(word_tokens) <= 1:
        return []
    boundaries = [0, *np.cumsum([len(tokens) for tokens in word_tokens[:-1]]).tolist()]
    # the path enters a new token at its jumps
    jumps = np.concatenate([[True], np.diff(text_indices) > 0])
    jump_times = (time_indices[jumps] / TOKENS_PER_SECOND).tolist()
    return [
        WordTiming(word, tokens, jump_times[i], jump_times[j], float(np.mean(text_probs[i:j])))
        for word, tokens, (i, j) in zip(words, word_tokens, pairwise(boundaries), strict=False)
    ]


def _normalize_attention(qk: Tensor, n_positions: int, medfilt_width: int, qk_scale: float) -> Tensor:
    """Return how much each token stands out at each position, ``(n_tokens, n_positions)``, a mean over the heads."""
    on_cpu = not isinstance(qk, Tensor) or qk.device.type == "cpu"
    if medfilt_width == KERNEL_WIDTH < n_positions and on_cpu and not compat.replaced("timing.median_filter"):
        floats = qk.float() if isinstance(qk, Tensor) else qk
        normalized = _compiled_normalize_attention(floats, n_positions, qk_scale)
        if normalized is not None:
            return normalized
    qk = as_tensor(qk)
    weights = (qk[:, :, :n_positions] * qk_scale).softmax(dim=-1)  # (n_heads, n_tokens, n_positions)
    std, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    return median_filter((weights - mean) / std, medfilt_width).mean(dim=0)


def _compiled_normalize_attention(qk: Tensor, n_positions: int, qk_scale: float) -> Tensor | None:
    """Do so in the compiled kernels; None where they are missing, or where a position does not vary."""
    library = kernels.load()
    n_heads, n_tokens, n_audio_ctx = qk.shape
    if library is None or n_positions > n_audio_ctx:
        return None
    qk = qk.contiguous() if isinstance(qk, Tensor) else np.ascontiguousarray(qk)
    each = np.empty((n_heads, n_tokens, n_positions), np.float32)
    out = np.empty((n_tokens, n_positions), np.float32)
    scores, by_head, mean = (
        ctypes.c_void_p(address(numbers, np.float32, size, "attention scores"))
        for numbers, size in ((qk, n_heads * n_tokens * n_audio_ctx), (each, each.size), (out, out.size))
    )
    failed = library.sotto_normalize_attention(
        scores, n_heads, n_tokens, n_audio_ctx, n_positions, ctypes.c_float(qk_scale), by_head, mean,
        n_threads(),
    )  # fmt: skip
    if failed == 1:
        raise MemoryError("not enough memory for the word times")
    if failed:
        return None
    return torch.from_numpy(out) if isinstance(qk, Tensor) else out


def _engine_attention(
    model: Whisper, tokenizer: Tokenizer, text_tokens: Sequence[int], mel: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Return the attention from the exact engine; None where only the model's own modules will do."""
    given = mel.dtype == torch.float32 and mel.ndim == 2 and mel.device == model.device
    if not given or not choice.usable(model) or not is_window(model, mel[None]):
        return None

    async def request() -> tuple[Tensor, Tensor]:
        window = await encode_operation(model, mel)
        return await attend_operation(model, tokenizer, text_tokens, window)

    attention: tuple[Tensor, Tensor] = engine_for(model, fp16=False).submit(request()).result()
    return attention


def attend_operation(model: Whisper, tokenizer: Tokenizer, text_tokens: Sequence[int], window: EncodedWindow) -> Attend:
    """Return what to await for `find_alignment`'s `attention`."""
    start = (*tokenizer.sot_sequence, tokenizer.no_timestamps)
    heads = tuple((layer, head) for layer, head in model.alignment_heads.indices().T.tolist())
    return Attend(window, (*start, *text_tokens, tokenizer.eot), heads, len(start) - 1, len(text_tokens))


@clean_state()
def _attend(model: Whisper, tokenizer: Tokenizer, text_tokens: list[int], mel: Tensor) -> tuple[Tensor, list[float]]:
    """Let the decoder read the text while it listens.

    Returns
    -------
    qk
        Cross-attention scores of the alignment heads, ``(n_heads, n_tokens, n_audio_ctx)``.
    text_probs
        Probability of each text token, given those before it.
    """
    start = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
    tokens = torch.tensor([[*start, *text_tokens, tokenizer.eot]], dtype=torch.long, device=model.device)
    mel = mel.unsqueeze(0).to(model.device)
    features = mel if is_encoded(model, mel) else model.encoder(mel)
    from .model import KVCache, disable_sdpa

    cache = KVCache(record_attention=True)
    with disable_sdpa():
        logits = model.decoder(tokens, features, kv_cache=cache)[0]
    assert cache.cross_qk is not None
    heads = model.alignment_heads.indices().T.tolist()
    qk = torch.stack([cache.cross_qk[layer][0, head] for layer, head in heads])

    return qk, _probabilities(logits[len(tokenizer.sot_sequence) :], tokenizer.eot, text_tokens)


def _probabilities(logits: Tensor, eot: int, text_tokens: list[int]) -> list[float]:
    """Return the probability of each token among all text, given the logits before it, ``(>= n_text, n_vocab)``."""
    library, n, n_vocab = kernels.load(), len(text_tokens), logits.shape[1]
    if len(logits) < n or not 0 <= min(text_tokens) <= max(text_tokens) < min(eot, n_vocab):
        raise ShapeError(
            f"text tokens from {min(text_tokens)} to {max(text_tokens)}; text has ids from 0 to {eot - 1}: leave "
            "timestamps and control tokens out"
        )
    if isinstance(logits, Tensor) and (library is None or logits.device.type != "cpu" or logits.dtype != torch.float32):
        rows = logits[:n, :eot]
        chosen = rows.gather(1, torch.tensor(text_tokens, dtype=torch.long, device=logits.device)[:, None])[:, 0]
        slow: list[float] = (chosen - rows.logsumexp(dim=-1)).exp().tolist()
        return slow
    assert library is not None  # which has made an array of logits
    logits = logits[:n].contiguous() if isinstance(logits, Tensor) else np.ascontiguousarray(logits[:n])
    ids, out = np.array(text_tokens, dtype=np.int32), np.empty(n, dtype=np.float32)
    library.sotto_token_logprobs(
        ctypes.c_void_p(address(logits, np.float32, n * n_vocab, "logits")), n, n_vocab, eot,
        ctypes.c_void_p(address(ids, np.int32, n, "text tokens")),
        ctypes.c_void_p(address(out, np.float32, n, "probabilities")), n_threads(),
    )  # fmt: skip
    probabilities: list[float] = np.exp(out).tolist()
    return probabilities


def merge_punctuations(alignment: list[WordTiming], prepended: str, appended: str) -> None:
    """Join punctuation to the word that it belongs to, in place; the words it was keep an empty text.

    Parameters
    ----------
    alignment
        Changed in place; its length stays.
    prepended, appended
        Marks that belong to the word after them, and to the word before them.
    """
    following = alignment[-1] if alignment else None
    for previous in reversed(alignment[:-1]):
        assert following is not None
        if previous.word.startswith(" ") and previous.word.strip() in prepended:
            following.word = previous.word + following.word
            following.tokens = previous.tokens + following.tokens
            previous.word, previous.tokens = "", []
        else:
            following = previous

    last = alignment[0] if alignment else None
    for timing in alignment[1:]:
        assert last is not None
        if not last.word.endswith(" ") and timing.word in appended:
            last.word += timing.word
            last.tokens = last.tokens + timing.tokens
            timing.word, timing.tokens = "", []
        else:
            last = timing


# ---------------------------------------------------------------------------------------------------------
# Words of segments
# ---------------------------------------------------------------------------------------------------------


def add_word_timestamps(
    *,
    segments: list[Segment],
    model: Whisper,
    tokenizer: Tokenizer,
    mel: Tensor,
    num_frames: int,
    prepend_punctuations: str = PREPEND_PUNCTUATIONS,
    append_punctuations: str = APPEND_PUNCTUATIONS,
    last_speech_timestamp: float,
    **kwargs: Any,
) -> None:
    """Give every segment of a window its ``words``, and start and end times that fit them, in place.

    Parameters
    ----------
    segments
        Of one window, in order.
    model, tokenizer, mel, num_frames
        See `find_alignment`.
    prepend_punctuations, append_punctuations
        See `merge_punctuations`.
    last_speech_timestamp
        Where the last word before this window ended, in seconds of the recording.
    **kwargs
        Passed on to `find_alignment`.
    """
    if not segments:
        return
    text_tokens = [[t for t in segment["tokens"] if t < tokenizer.eot] for segment in segments]
    alignment = find_alignment(model, tokenizer, list(chain(*text_tokens)), mel, num_frames, **kwargs)
    typical = typical_duration(alignment)
    if typical:
        shorten_at_sentence_ends(alignment, 2 * typical)
    merge_punctuations(alignment, prepend_punctuations, append_punctuations)

    offset = segments[0]["seek"] * HOP_LENGTH / SAMPLE_RATE
    remaining = iter(alignment)
    for segment, tokens in zip(segments, text_tokens, strict=True):
        words = _take_words(remaining, len(tokens), offset)
        if words:
            fit_words(segment, words, typical, last_speech_timestamp)
            last_speech_timestamp = segment["end"]
        segment["words"] = words


def typical_duration(alignment: Sequence[WordTiming]) -> float:
    """Return how long a word takes, in seconds; 0 where none takes any time."""
    durations = [timing.end - timing.start for timing in alignment if timing.end != timing.start]
    return min(MAX_MEDIAN_DURATION, float(np.median(durations))) if durations else 0.0


def shorten_at_sentence_ends(alignment: Sequence[WordTiming], longest: float) -> None:
    """Let a pause between sentences stretch neither the full stop nor the word after it, in place."""
    for previous, timing in pairwise(alignment):
        if timing.end - timing.start <= longest:
            continue
        if timing.word in SENTENCE_END_MARKS:
            timing.end = timing.start + longest
        elif previous.word in SENTENCE_END_MARKS:
            timing.start = timing.end - longest


def _take_words(remaining: Any, n_tokens: int, offset: float) -> list[Word]:
    """Take the words of the next `n_tokens` tokens off an iterator of timings."""
    words: list[Word] = []
    taken = 0
    while taken < n_tokens and (timing := next(remaining, None)) is not None:
        taken += len(timing.tokens)
        if timing.word:
            words.append(
                {
                    "word": timing.word,
                    "start": round(offset + timing.start, 2),
                    "end": round(offset + timing.end, 2),
                    "probability": timing.probability,
                }
            )
    return words


def fit_words(segment: Segment, words: list[Word], typical: float, last_speech: float) -> None:
    """Bring a segment's times and its first and last words together, in place.

    Parameters
    ----------
    segment
        Its start and end are set to the words' where these are believable.
    words
        At least one.
    typical
        Median duration of a word in this window, seconds.
    last_speech
        Where the word before ended, seconds.
    """
    longest = 2 * typical
    first, last = words[0], words[-1]
    if first["end"] - last_speech > 4 * typical:  # a pause before it
        _shorten_after_pause(words, longest)

    # a first word that reaches far before its segment, or a last one far behind it, was stretched over a pause
    if first["start"] < segment["start"] - 0.5 and segment["start"] < first["end"]:
        first["start"] = max(0, min(first["end"] - typical, segment["start"]))
    else:
        segment["start"] = first["start"]
    if last["end"] > segment["end"] + 0.5 and segment["end"] > last["start"]:
        last["end"] = max(last["start"] + typical, segment["end"])
    else:
        segment["end"] = last["end"]


def _shorten_after_pause(words: list[Word], longest: float) -> None:
    """Shorten the first word, or the first two, where they are too long to be said at once."""
    first, second = words[0], words[1] if len(words) > 1 else None
    both_too_long = second is not None and second["end"] - first["start"] > 2 * longest
    if not (first["end"] - first["start"] > longest or both_too_long):
        return
    if second is not None and second["end"] - second["start"] > longest:
        boundary = max(second["end"] / 2, second["end"] - longest)
        first["end"] = second["start"] = boundary
    first["start"] = max(0, first["end"] - longest)


compat.remember("timing.find_alignment", (globals(), ["find_alignment"]))
compat.remember("timing.median_filter", (globals(), ["median_filter"]))
