"""Training for users: from a manifest and some options to a checkpoint, by one call, `fit`.

Prepares the data, chooses the options left open, runs the trainer (`loop.py`), evaluates on a dev
set, keeps the best weights, and writes a model that this package and openai-whisper load. Progress
lines go to a function of the caller.
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

from ..errors import OptionError, TrainingError
from ..files import atomic_write
from ..manifests.read import NON_SPEECH, ManifestEntry, read_manifest
from ..model import ModelDimensions, Whisper
from ..options.types import check_names
from ..spans import FRAMES_PER_SECOND
from .curves import Curves, duration, progress_line
from .dev_evaluation import DevEvaluator, DevSetOptions, entry_name, examples
from .feature_store import MAX_FRAMES, FeatureStore, Preparation, build_store, make_store
from .mixing import Recipe, mix_window
from .options import SHAPES, FitOptions
from .run_directory import check_resumable, digest, locked, save_settings
from .targets import N_SHORT_MERGES, Vocabulary, full_vocabulary, reduce_text, reduced_vocabulary, used_token_ids
from .trainer import LAST, Run, Settings, Stage, export, load_best, make_batch, start, train

__all__ = [
    "SHAPES", "FitOptions", "Fitted", "ModelDimensions", "Recipe", "Run", "Settings", "Stage", "export", "fit",
    "load_best", "make_batch", "start", "train", "used_token_ids",
]  # fmt: skip

MODEL, SKIPPED = "model.pt", "skipped.tsv"


# --------------------------------------------------------------------------------------------------
# Fit
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """The result of `fit`."""

    path: Path  # of the checkpoint
    model: Whisper
    run: Run
    skipped: list[tuple[str, str]]  # recordings that were not trained on, and why

    @property
    def error(self) -> float | None:
        """The best word error rate on the dev set, None without one."""
        return min((error for _, error in self.run.evaluations), default=None)


# Options that may differ when a training is resumed. Whether model and dev set are the same is
# decided by their content, not by their names.
CHANGEABLE = (
    "model", "dev", "dev_clips", "steps", "epochs", "device", "threads", "seconds_at_once", "save_every",
    "evaluate_every", "patience",
)  # fmt: skip
CONTENTS = {
    "weights": "another model to fine-tune",
    "recordings": "other recordings",
    "clips": "other recordings",
    "dev_recordings": "another dev set",
}
Say = Callable[[str], None]


def fit(
    manifest: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: FitOptions | None = None,
    say: Say = lambda line: None,
    stopped: Callable[[], bool] | None = None,
    **values: Any,
) -> Fitted:
    """Train a model on a manifest, or resume an earlier call with the same arguments.

    Parameters
    ----------
    manifest
        Labelled recordings, as for `manifests.read_manifest`. Entries of language ``none`` have no
        speech: they are trained on as such, and used as background noise.
    output
        A folder. It gets ``model.pt``, which `load_model` and openai-whisper load; ``last.ckpt`` to
        resume from; ``curves.png`` and a log for TensorBoard; ``skipped.tsv``, the skipped entries;
        and features.
    options, values
        `FitOptions`, or its fields by name; with both, `values` replace those of `options`.
    say
        Called with each line of progress.
    stopped
        Called after every step; if it returns true, the run is saved and KeyboardInterrupt raised.

    Returns
    -------
    Fitted
        The trained model, and how the training went.

    Raises
    ------
    DataError
        The manifest cannot be read.
    TrainingError
        There is nothing to train on, `output` holds another training or cannot be written, or
        memory is too small.
    OptionError
        An option has a wrong value.
    """
    check_names(values, "fit", FitOptions)
    options = replace(options, **values) if options else FitOptions(**values)
    options.place()
    folder = Path(output)
    with locked(folder), _memory_errors():
        return _fit(manifest, folder, options, say, stopped)


def _fit(
    manifest: str | os.PathLike[str],
    folder: Path,
    options: FitOptions,
    say: Say,
    stopped: Callable[[], bool] | None,
) -> Fitted:
    model = _load(options, folder)
    dims = model.dims if model else options.dimensions()
    short_merges = model is None or _has_short_merges(model)
    full = full_vocabulary(
        model.is_multilingual if model else True, model.num_languages if model else 99, options.task, short_merges
    )
    listed = read_manifest(manifest, max_seconds=MAX_FRAMES / FRAMES_PER_SECOND, require_text=True)
    say(listed.describe())
    if options.language is None and not full.languages:
        options = replace(options, language="en")  # the only language of an English-only model
    plain = _is_plain(options, short_merges, listed.recordings)
    usable, unusable = _select(listed.recordings, options, plain, full, dims)
    unread = [(entry_name(entry.line, entry.cells), entry.reason) for entry in listed.skipped]
    if not any(recording.text for recording in usable):
        why = examples([*unusable, *unread]) or "there is no speech in any"
        raise TrainingError(f"there is nothing to train on: {manifest} has no usable recording with speech ({why})")
    dev = _dev_evaluator(options, dims, full, say)
    identity = _identity(options, model, usable, dev)
    if (folder / LAST).exists():
        check_resumable(folder, identity, CHANGEABLE, CONTENTS)

    say(f"preparing {len(usable)} recordings, with {'plain' if plain else 'given'} texts")
    preparation = Preparation(dims.n_mels, plain, options.language, word_times=model is None)
    store = build_store(usable, folder / "features", preparation, options.place()[2])
    identity["clips"] = digest((c.text, c.language, c.n_frames) for c in [*store.clips, *store.non_speech])
    if (folder / LAST).exists():
        check_resumable(folder, identity, CHANGEABLE, CONTENTS)
    store, too_long = _without_too_long(store, options)
    skipped = [*unread, *unusable, *store.skipped, *too_long]
    skipped_dev = [(f"dev: {name}", why) for name, why in dev.skipped] if dev else []
    _write_skipped([*skipped, *skipped_dev], folder, say)
    settings = _settings(options, store, dims, say)
    save_settings(folder, identity)
    vocabulary = full
    if model is None:
        texts, languages = [clip.text for clip in store.clips], sorted({clip.language for clip in store.clips})
        vocabulary = reduced_vocabulary(texts, languages, options.task)
    run = _train(settings, store, vocabulary, folder, model, dev, say, stopped)
    best = load_best(run, settings, folder)
    result = export(best)
    return Fitted(_save(result, folder, say), result, best, skipped)


def _train(
    settings: Settings,
    store: FeatureStore,
    vocabulary: Vocabulary,
    folder: Path,
    model: Whisper | None,
    dev: DevEvaluator | None,
    say: Say,
    stopped: Callable[[], bool] | None,
) -> Run:
    curves: Curves | None = None
    began = time.perf_counter()

    def watch(run: Run, settings: Settings, pace: float) -> None:
        nonlocal curves
        curves = curves or Curves(folder, run.first_step)
        curves.write(run, settings, pace)
        left = (time.perf_counter() - began) / (run.step - run.first_step) * (settings.n_steps - run.step)
        say(progress_line(run, settings, pace, left or None))

    interrupted = False

    def stop() -> bool:
        nonlocal interrupted
        interrupted = interrupted or (stopped is not None and stopped())
        return interrupted

    if (folder / LAST).exists():
        say(f"resuming from {folder / LAST}")
    try:
        run = train(settings, store, vocabulary, folder, model=model, evaluate=dev, watch=watch, stopped=stop)
    finally:
        if curves is not None:
            curves.close()
    if run.step < settings.n_steps:
        if interrupted:
            raise KeyboardInterrupt
        say(f"stopped at step {run.step}: {settings.patience} evaluations without improvement")
    elif run.first_step == run.step:
        say(f"nothing left to train: step {run.step} of {settings.n_steps}")
    if run.evaluations:
        step, error = min(run.evaluations, key=lambda evaluation: evaluation[1])
        say(f"best at step {step}: word error rate on dev {100 * error:.1f} %")
    return run


def _load(options: FitOptions, folder: Path) -> Whisper | None:
    from ..checkpoints.load import load_model

    if options.model is None:
        return None
    if os.path.realpath(options.model) == os.path.realpath(folder / MODEL):
        raise TrainingError(f"{options.model} would be overwritten by the result: choose another output folder")
    model = load_model(options.model, device="cpu")
    if options.task == "translate" and not model.is_multilingual:
        raise OptionError(f"task translate needs a multilingual model, and {options.model} is English-only")
    return model


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Translate out-of-memory errors into one that says what to do."""
    try:
        yield
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        raise TrainingError(
            "out of memory: give a smaller seconds_at_once (30 is the least for a window of 30 s), lora_rank, or a "
            f"smaller model ({str(error).splitlines()[0] if str(error) else 'no more memory'})"
        ) from error


# --------------------------------------------------------------------------------------------------
# Training data
# --------------------------------------------------------------------------------------------------


def _is_plain(options: FitOptions, short_merges: bool, recordings: Sequence[ManifestEntry]) -> bool:
    """Whether texts are normalized to plain letters, which is possible for English and French."""
    if options.text is not None:
        return options.text == "plain"
    languages = {recording.language or options.language for recording in recordings}
    return short_merges and languages <= {"en", "fr", NON_SPEECH, None}


def _select(
    recordings: Sequence[ManifestEntry], options: FitOptions, plain: bool, vocabulary: Vocabulary, dims: ModelDimensions
) -> tuple[list[ManifestEntry], list[tuple[str, str]]]:
    """Recordings that the model can be trained on; and the others, with the reason."""
    usable, unusable = list[ManifestEntry](), list[tuple[str, str]]()
    languages = vocabulary.languages or ("en",)
    max_tokens = dims.n_text_ctx // 2 - 4  # the text of a window takes half of the context
    for recording in recordings:
        language, reason = recording.language or options.language or NON_SPEECH, ""
        n_tokens = len(vocabulary.encode(reduce_text(recording.text) if plain else recording.text))
        if language == NON_SPEECH and recording.text:
            reason = "language not given: the option language sets one for all such entries"
        elif language != NON_SPEECH and language not in languages:
            why = "the model has no token for it" if vocabulary.languages else "the model is English-only"
            reason = f"language {language}: {why}"
        elif n_tokens > max_tokens:
            reason = f"too long: a text of {n_tokens} tokens, a window has {max_tokens}"
        if reason:
            unusable.append((recording.path, reason))
        else:
            usable.append(recording)
    return usable, unusable


def _without_too_long(store: FeatureStore, options: FitOptions) -> tuple[FeatureStore, list[tuple[str, str]]]:
    """Leave out clips that fit into no window; they would be trained on as silence."""
    longest, excerpts = max(options.window_seconds), options.recipe().p_excerpt > 0
    if longest * FRAMES_PER_SECOND >= MAX_FRAMES:
        return store, []
    max_speech = int(0.9 * longest * FRAMES_PER_SECOND)
    long = [clip for clip in store.clips if clip.n_speech > max_speech and not (excerpts and clip.words)]
    if not long:
        return store, []
    kept = [clip for clip in store.clips if clip not in set(long)]
    if not kept:
        shortest = min(clip.n_speech for clip in long) / FRAMES_PER_SECOND
        raise TrainingError(
            f"there is nothing to train on: no recording fits into windows of {longest:g} s, the shortest has "
            f"{shortest:.1f} s of speech; give larger window_seconds"
        )
    skipped = []
    for clip in long:
        seconds, most = clip.n_speech / FRAMES_PER_SECOND, max_speech / FRAMES_PER_SECOND
        why = f"longer than the windows: {seconds:.1f} s of speech, a window of {longest:g} s takes {most:.1f}"
        skipped.append((repr(clip.text[:40]), why))
    return make_store(store.features, [*kept, *store.non_speech], store.skipped), skipped


def _write_skipped(skipped: list[tuple[str, str]], folder: Path, say: Say) -> None:
    """Write the list of skipped recordings, and say how many there are."""
    lines = ["what\twhy", *("\t".join(" ".join(cell.split()) for cell in pair) for pair in skipped)]
    with atomic_write(folder / SKIPPED) as file:
        file.write(("\n".join(lines) + "\n").encode(errors="replace"))
    if skipped:
        name, reason = skipped[-1]
        say(f"skipped: {len(skipped)}, such as {name}: {reason}; {folder / SKIPPED} lists all")


def _has_short_merges(model: Whisper) -> bool:
    """Whether a model has a reduced vocabulary: then most token embeddings are equal."""
    embedding = model.decoder.token_embedding.weight[N_SHORT_MERGES:20000]
    return bool((embedding == embedding[-1]).all(dim=1).float().mean() > 0.9)


# --------------------------------------------------------------------------------------------------
# Settings and messages
# --------------------------------------------------------------------------------------------------


def _identity(
    options: FitOptions,
    model: Whisper | None,
    recordings: Sequence[ManifestEntry],
    dev: DevEvaluator | None,
) -> dict[str, Any]:
    """The options, and digests of model and data: a resumed training must have the same."""
    weights = None
    if model is not None:
        weights = digest(
            tensor.flatten()[:: max(tensor.numel() // 500, 1)].float().numpy().tobytes()
            for tensor in model.state_dict().values()
        )
    # without the folders of the recordings, which may have moved
    entries = (replace(r, path=os.path.basename(r.path), extra={}) for r in recordings)
    return asdict(options) | {
        "weights": weights,
        "recordings": digest(entries),
        "dev_recordings": digest(dev.content) if dev else None,
    }


def _dev_evaluator(options: FitOptions, dims: ModelDimensions, vocabulary: Vocabulary, say: Say) -> DevEvaluator | None:
    if options.dev is None:
        return None
    device, _, threads = options.place()
    dev = DevEvaluator(
        DevSetOptions(
            manifest=options.dev,
            n_mels=dims.n_mels,
            languages=vocabulary.languages or ("en",),
            language=options.language,
            task=options.task,
            clips=options.dev_clips,
            seed=options.seed,
            device=device,
            threads=threads,
        )
    )
    skipped = f", {len(dev.skipped)} skipped" if dev.skipped else ""
    say(f"{options.dev}: {len(dev)} recordings to evaluate on{skipped}")
    return dev


def _settings(options: FitOptions, store: FeatureStore, dims: ModelDimensions, say: Say) -> Settings:
    """Settings for the data in `store`; says them in a line."""
    speech_share = _speech_share(store, options)
    settings = options.settings(store.hours, dims, speech_share)
    seconds, stage = store.hours * 3600, settings.stages[0]
    epochs = stage.steps * stage.seconds_per_step * speech_share / seconds
    say(
        f"{duration(seconds)} of speech in {len(store.clips)} recordings, {len(store.non_speech)} without speech; "
        f"steps: {stage.steps} of {stage.seconds_per_step:g} s, epochs: {epochs:.{1 if epochs < 100 else 0}f}, on "
        f"{settings.device} in {settings.precision}"
    )
    return settings


def _speech_share(store: FeatureStore, options: FitOptions) -> float:
    """The share of speech in windows, measured on a sample."""
    rng, recipe = np.random.default_rng(options.seed), options.recipe()
    lengths = [float(rng.choice(recipe.lengths)) for _ in range(24)]
    windows = [mix_window(rng, store, recipe, seconds) for seconds in lengths]
    frames = sum(segment.end - segment.start for window in windows for segment in window.segments)
    return max(frames / FRAMES_PER_SECOND / sum(lengths), 0.01)


def _save(model: Whisper, folder: Path, say: Say) -> Path:
    from ..checkpoints.load import save_checkpoint

    path = folder / MODEL
    save_checkpoint(model, path)
    say(f"{path}: {path.stat().st_size / 1e6:.0f} MB; whisper.load_model({str(path)!r})")
    return path
