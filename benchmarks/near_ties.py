"""Why two transcripts differ: how close the two tokens were at the first place where they part.

Sums of floating-point numbers in another order differ in their last digits, so where two tokens are as likely to the
last digits, two exact implementations may choose differently, and all that follows differs. A gap of less than
`NEAR` in log-probability is such a near tie; a larger one is a fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

NEAR = 1e-3


@dataclass(frozen=True)
class Parting:
    """The first place where two transcripts part."""

    seek: int  # of the window, in frames
    before: list[int]  # tokens of the windows before it
    common: list[int]  # tokens of the window before the place
    theirs: int | None  # the tokens there; None: the text of the window ends
    ours: int | None


def windows_of(transcript: dict[str, Any]) -> dict[int, list[int]]:
    """Return the tokens of each window, by its seek."""
    windows: dict[int, list[int]] = {}
    for segment in transcript["segments"]:
        windows.setdefault(segment["seek"], []).extend(segment["tokens"])
    return windows


def first_parting(theirs: dict[str, Any], ours: dict[str, Any]) -> Parting | None:
    """Return the first place where the tokens part; None where they do not."""
    one, other = windows_of(theirs), windows_of(ours)
    before: list[int] = []
    for seek in sorted({*one, *other}):
        a, b = one.get(seek, []), other.get(seek, [])
        if a != b:
            n = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))  # noqa: B905
            return Parting(seek, before, a[:n], a[n] if n < len(a) else None, b[n] if n < len(b) else None)
        before = before + a
    return None


def gap(model: Any, samples: np.ndarray, language: str, options: dict[str, Any], at: Parting) -> float:
    """Return how much likelier the original's token is than ours, as a difference of log-probabilities.

    Parameters
    ----------
    model
        A Whisper whose modules run in float32.
    language, options
        Of the transcript.
    """
    import torch

    import whisper
    from whisper.tokenizer import get_tokenizer

    task = options.get("task", "transcribe")
    tokenizer = get_tokenizer(model.is_multilingual, num_languages=model.num_languages, language=language, task=task)
    prompt = tokenizer.encode(" " + options["initial_prompt"].strip()) if "initial_prompt" in options else []
    prompt = [*prompt, *at.before][-(model.dims.n_text_ctx // 2 - 1) :]
    tokens = [*([tokenizer.sot_prev, *prompt] if prompt else []), *tokenizer.sot_sequence, *at.common]
    mel = whisper.log_mel_spectrogram(samples, model.dims.n_mels, padding=whisper.audio.N_SAMPLES)
    content = mel[:, : mel.shape[-1] - whisper.audio.N_FRAMES]
    window = whisper.pad_or_trim(content[:, at.seek : at.seek + whisper.audio.N_FRAMES], whisper.audio.N_FRAMES)
    with torch.no_grad():
        logits = model.logits(torch.tensor([tokens], dtype=torch.long), model.encoder(window[None]))[0, -1]
    a, b = (tokenizer.eot if token is None else token for token in (at.theirs, at.ours))
    return float(logits[a] - logits[b])
