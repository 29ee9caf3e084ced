"""Training for users: from a manifest and some options to a checkpoint, by one call, `fit`.

Prepares the data, chooses what was left open, calls the loop (`loop.py`), listens on a dev set, keeps the best, and
writes a model that this package and openai-whisper load. What it prints goes to the function it is given.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .composing import Recipe, compose
from .curves import Curves, duration, progress_line
from .datasets import FRAMES, LONGEST, Preparation, Store, build_store, make_store, reduce_text
from .download import written_whole
from .errors import OptionError, TrainingError
from .fit_options import SHAPES, FitOptions
from .listener import Listener, Listening, bad_row_name, examples
from .loop import LAST, Run, Settings, Stage, best_of, export, make_batch, start, train
from .manifests import NOBODY, Recording, read_manifest
from .model import ModelDimensions, Whisper
from .options import check_names
from .run_folder import check, digest, held, remember
from .targets import PIECES, Vocabulary, used_token_ids, used_vocabulary, whole_vocabulary

__all__ = [
    "SHAPES", "FitOptions", "Fitted", "ModelDimensions", "Recipe", "Run", "Settings", "Stage", "best_of", "export",
    "fit", "make_batch", "start", "train", "used_token_ids",
]  # fmt: skip

MODEL, SKIPPED = "model.pt", "skipped.tsv"


# ---------------------------------------------------------------------------------------------------------
# Fit
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """What `fit` has made."""

    path: Path  # the checkpoint
    model: Whisper
    run: Run
    skipped: list[tuple[str, str]]  # recordings that were not learnt from, and why

    @property
    def error(self) -> float | None:
        """The best word error rate on the dev set, if there was one."""
        return min((error for _, error in self.run.evaluations), default=None)


# What a call may change and still go on with the training in its folder. Whether model and dev are the same is seen
# from what is in them, not from their names.
LOOSE = ("model", "dev", "dev_clips", "steps", "epochs", "device", "threads", "seconds_at_once", "save_every",
         "evaluate_every", "patience")  # fmt: skip
CONTENTS = {"weights": "another model to fine-tune", "recordings": "other recordings", "sounds": "other recordings",
            "dev_recordings": "other recordings to score"}  # fmt: skip
Say = Callable[[str], None]


def fit(
    manifest: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: FitOptions | None = None,
    say: Say = lambda line: None,
    stopped: Callable[[], bool] | None = None,
    **values: Any,
) -> Fitted:
    """Train a model on a manifest, or continue where an earlier call with the same arguments was killed.

    Parameters
    ----------
    manifest
        Recordings with texts, as `manifests.read_manifest` reads them; of rows whose language is ``none`` nobody
        speaks, and they are learnt as such and used as noise behind speech.
    output
        A folder. It gets ``model.pt``, which `load_model` and openai-whisper load; ``last.ckpt`` to continue from;
        ``curves.png`` and a log for TensorBoard; ``skipped.tsv``, the rows that could not be used; and features.
    options, values
        `FitOptions`, or its fields by name, or some of them changed.
    say
        Is given each line of progress.
    stopped
        Asked after every step; where it says yes, all is saved and KeyboardInterrupt raised.

    Raises
    ------
    TrainingError
        There is nothing to train on, `output` holds another training or cannot be written, or memory is too small.
    OptionError
        An option with a wrong value.
    """
    check_names(values, "fit", FitOptions)
    options = replace(options, **values) if options else FitOptions(**values)
    options.place()
    folder = Path(output)
    with held(folder), _enough_memory():
        return _fit(manifest, folder, options, say, stopped)


def _fit(
    manifest: str | os.PathLike[str], folder: Path, options: FitOptions, say: Say,
    stopped: Callable[[], bool] | None,
) -> Fitted:  # fmt: skip
    model = _load(options, folder)
    dims = model.dims if model else options.dimensions()
    short_pieces = model is None or _has_short_pieces(model)
    reader = whole_vocabulary(
        model.is_multilingual if model else True, model.num_languages if model else 99, options.task, short_pieces
    )
    listed = read_manifest(manifest, max_seconds=LONGEST / FRAMES, require_text=True)
    say(listed.describe())
    if options.language is None and not reader.languages:
        options = replace(options, language="en")  # what a model of English alone hears
    plain = _is_plain(options, short_pieces, listed.recordings)
    known, unknown = _learnable(listed.recordings, options, plain, reader, dims)
    rows = [(bad_row_name(bad.line, bad.row), bad.reason) for bad in listed.skipped]
    if not any(recording.text for recording in known):
        why = examples([*unknown, *rows]) or "nobody speaks in any"
        raise TrainingError(f"there is nothing to train on: {manifest} has no recording with speech for it ({why})")
    listener = _listener(options, dims, reader, say)
    told = asdict(options) | {
        "weights": _weights_of(model), "recordings": digest(_without_folder(r) for r in known),
        "dev_recordings": digest(listener.content) if listener else None,
    }  # fmt: skip
    if (folder / LAST).exists():
        check(folder, told, LOOSE, CONTENTS)

    say(f"preparing {len(known)} recordings, with {'plain' if plain else 'given'} texts")
    preparation = Preparation(dims.n_mels, plain, options.language, word_times=model is None)
    store = build_store(known, folder / "features", preparation, options.place()[2])
    told["sounds"] = digest((c.text, c.language, c.n_frames) for c in [*store.clips, *store.sounds])
    if (folder / LAST).exists():
        check(folder, told, LOOSE, CONTENTS)
    store, too_long = _fitting(store, options)
    of_dev = [(f"dev: {what}", why) for what, why in listener.skipped] if listener else []
    skipped = [*rows, *unknown, *store.skipped, *too_long]
    _list_skipped([*skipped, *of_dev], folder, say)
    settings = _settings(options, store, dims, say)
    remember(folder, told)
    vocabulary = reader if model else _used(options, store)
    run = _train(settings, store, vocabulary, folder, model, listener, say, stopped)
    best = best_of(run, settings, folder)
    made = export(best)
    return Fitted(_save(made, folder, say), made, best, skipped)


def _train(
    settings: Settings, store: Store, vocabulary: Vocabulary, folder: Path, model: Whisper | None,
    listener: Listener | None, say: Say, stopped: Callable[[], bool] | None,
) -> Run:  # fmt: skip
    curves: Curves | None = None
    began = time.perf_counter()

    def watch(run: Run, settings: Settings, pace: float) -> None:
        nonlocal curves
        curves = curves or Curves(folder, run.began)
        curves.write(run, settings, pace)
        left = (time.perf_counter() - began) / (run.step - run.began) * (settings.n_steps - run.step)
        say(progress_line(run, settings, pace, left or None))

    asked = False

    def stop() -> bool:
        nonlocal asked
        asked = asked or (stopped is not None and stopped())
        return asked

    if (folder / LAST).exists():
        say(f"continuing from {folder / LAST}")
    try:
        run = train(settings, store, vocabulary, folder, model=model, evaluate=listener, watch=watch, stopped=stop)
    finally:
        if curves is not None:
            curves.close()
    if run.step < settings.n_steps:
        if asked:
            raise KeyboardInterrupt
        say(f"ended at step {run.step}: {settings.patience} scorings without a better one")
    elif run.began == run.step:
        say(f"nothing is left to train: step {run.step} of {settings.n_steps}")
    if run.evaluations:
        step, error = min(run.evaluations, key=lambda evaluation: evaluation[1])
        say(f"the best was step {step}: word error on dev {100 * error:.1f} %")
    return run


def _load(options: FitOptions, folder: Path) -> Whisper | None:
    from .checkpoints import load_model

    if options.model is None:
        return None
    if os.path.realpath(options.model) == os.path.realpath(folder / MODEL):
        raise TrainingError(f"{options.model} would be overwritten by what it becomes: choose another output folder")
    model = load_model(options.model, device="cpu")
    if options.task == "translate" and not model.is_multilingual:
        raise OptionError(f"task translate needs a multilingual model, and {options.model} knows English alone")
    return model


@contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        raise TrainingError(
            "memory is too small: give a smaller seconds_at_once (30 is the least that a window of 30 s needs), "
            f"lora_rank, or a smaller model ({str(error).splitlines()[0] if str(error) else 'no more memory'})"
        ) from error


# ---------------------------------------------------------------------------------------------------------
# What can be learnt
# ---------------------------------------------------------------------------------------------------------


def _is_plain(options: FitOptions, short_pieces: bool, recordings: Sequence[Recording]) -> bool:
    """Whether texts are reduced to plain letters, which exist for English and French."""
    if options.text is not None:
        return options.text == "plain"
    spoken = {recording.language or options.language for recording in recordings}
    return short_pieces and spoken <= {"en", "fr", NOBODY, None}


def _learnable(
    recordings: Sequence[Recording], options: FitOptions, plain: bool, reader: Vocabulary, dims: ModelDimensions
) -> tuple[list[Recording], list[tuple[str, str]]]:
    """Recordings that the model has tokens for; those that it has not, with the reason."""
    known, skipped = list[Recording](), list[tuple[str, str]]()
    languages, room = reader.languages or ("en",), dims.n_text_ctx // 2 - 4  # a window's text is half of the context
    for recording in recordings:
        language, reason = recording.language or options.language or NOBODY, ""
        n_tokens = len(reader.encode(reduce_text(recording.text) if plain else recording.text))
        if language == NOBODY and recording.text:
            reason = "language not given: option language names one for all such rows"
        elif language != NOBODY and language not in languages:
            why = "the model has no token for it" if reader.languages else "the model knows English alone"
            reason = f"language {language}: {why}"
        elif n_tokens > room:
            reason = f"too long: a text of {n_tokens} tokens, a window has {room}"
        if reason:
            skipped.append((recording.path, reason))
        else:
            known.append(recording)
    return known, skipped


def _fitting(store: Store, options: FitOptions) -> tuple[Store, list[tuple[str, str]]]:
    """What can be placed in the longest window; else a window that has only longer clips would teach silence."""
    longest, cuts = max(options.window_seconds), options.recipe().p_part > 0
    if longest * FRAMES >= LONGEST:
        return store, []
    room = int(0.9 * longest * FRAMES)
    long = [clip for clip in store.clips if clip.n_speech > room and not (cuts and clip.words)]
    if not long:
        return store, []
    kept = [clip for clip in store.clips if clip not in set(long)]
    if not kept:
        shortest = min(clip.n_speech for clip in long) / FRAMES
        raise TrainingError(
            f"there is nothing to train on: no recording fits into windows of {longest:g} s, the shortest has "
            f"{shortest:.1f} s of speech; give larger window_seconds"
        )
    why = "longer than the windows: {:.1f} s of speech, a window of {:g} s takes {:.1f}"
    rows = [(repr(c.text[:40]), why.format(c.n_speech / FRAMES, longest, room / FRAMES)) for c in long]
    return make_store(store.features, [*kept, *store.sounds], store.skipped), rows


def _list_skipped(rows: list[tuple[str, str]], folder: Path, say: Say) -> None:
    """Write what is not learnt from into a file, and say how much it is."""
    lines = ["what\twhy", *("\t".join(" ".join(cell.split()) for cell in row) for row in rows)]
    with written_whole(folder / SKIPPED) as file:
        file.write(("\n".join(lines) + "\n").encode(errors="replace"))
    if rows:
        say(f"left out: {len(rows)}, such as {rows[-1][0]}: {rows[-1][1]}; {folder / SKIPPED} lists all")


def _used(options: FitOptions, store: Store) -> Vocabulary:
    texts = [clip.text for clip in store.clips]
    return used_vocabulary(texts, sorted({clip.language for clip in store.clips}), options.task)


def _has_short_pieces(model: Whisper) -> bool:
    """Whether the model was made with a used vocabulary: then most rows of its embedding are one and the same."""
    rows = model.decoder.token_embedding.weight[PIECES:20000]
    return bool((rows == rows[-1]).all(dim=1).float().mean() > 0.9)


# ---------------------------------------------------------------------------------------------------------
# What the folder remembers, and what is said
# ---------------------------------------------------------------------------------------------------------


def _without_folder(recording: Recording) -> Recording:
    """A row as it counts for a training: its folder may have been moved, or be named from elsewhere."""
    return replace(recording, path=os.path.basename(recording.path), extra={})


def _weights_of(model: Whisper | None) -> str | None:
    """A digest of some weights of every tensor."""
    if model is None:
        return None
    return digest(
        tensor.flatten()[:: max(tensor.numel() // 500, 1)].float().numpy().tobytes()
        for tensor in model.state_dict().values()
    )


def _listener(options: FitOptions, dims: ModelDimensions, reader: Vocabulary, say: Say) -> Listener | None:
    if options.dev is None:
        return None
    device, _, threads = options.place()
    listener = Listener(Listening(
        options.dev, dims.n_mels, reader.languages or ("en",), options.language, options.task, options.dev_clips,
        options.seed, device, threads,
    ))  # fmt: skip
    left_out = f", {len(listener.skipped)} left out" if listener.skipped else ""
    say(f"{options.dev}: {len(listener)} recordings to score while training{left_out}")
    return listener


def _settings(options: FitOptions, store: Store, dims: ModelDimensions, say: Say) -> Settings:
    """Settings for what is in `store`, said in a line."""
    spoken = _spoken(store, options)
    settings = options.settings(store.hours, dims, spoken)
    seconds, stage = store.hours * 3600, settings.stages[0]
    length = duration(seconds)
    epochs = stage.steps * stage.seconds_per_step * spoken / seconds
    how_often = f"{epochs:.{1 if epochs < 100 else 0}f}"
    say(f"{length} of speech in {len(store.clips)} recordings, {len(store.sounds)} without; steps: {stage.steps} of "
        f"{stage.seconds_per_step:g} s, epochs: {how_often}, on {settings.device} in {settings.precision}")  # fmt: skip
    return settings


def _spoken(store: Store, options: FitOptions) -> float:
    """The part of windows that is speech, by trial: many hold one recording, and all have pauses."""
    rng, recipe = np.random.default_rng(options.seed), options.recipe()
    lengths = [float(rng.choice(recipe.lengths)) for _ in range(24)]
    windows = [compose(rng, store, recipe, seconds) for seconds in lengths]
    frames = sum(segment.end - segment.start for window in windows for segment in window.segments)
    return max(frames / FRAMES / sum(lengths), 0.01)


def _save(model: Whisper, folder: Path, say: Say) -> Path:
    from .checkpoints import save_checkpoint

    path = folder / MODEL
    save_checkpoint(model, path)
    say(f"{path}: {path.stat().st_size / 1e6:.0f} MB; whisper.load_model({str(path)!r})")
    return path
