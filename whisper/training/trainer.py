"""The trainer: settings, batches, optimizer steps, checkpoints, early stopping, and export.

A step is a function of its number and of the weights before it, so an interrupted run that is
resumed ends with the same weights. Trains from scratch or from a checkpoint, all weights or
low-rank adapters (`lora.py`), on a CPU or a GPU. Reads no manifest, chooses no settings
(`training.py`) and prints nothing.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..files import atomic_write
from ..model import ModelDimensions, Whisper
from . import lora
from .mixing import Recipe, TrainingWindow, mix_window
from .network import FROM_SCRATCH, Objective, TrainingBatch, TrainingNetwork
from .optimizers import adamw, muon
from .targets import IGNORE_INDEX, N_TIMESTAMPS, Target, Vocabulary, make_target

if TYPE_CHECKING:
    from .feature_store import FeatureStore

log = logging.getLogger(__name__)

NANO = ModelDimensions(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=256,
    n_audio_head=4,
    n_audio_layer=4,
    n_vocab=51865,
    n_text_ctx=448,
    n_text_state=256,
    n_text_head=4,
    n_text_layer=2,
)
LAST, BEST = "last.ckpt", "best.ckpt"
SAVE_SECONDS = 300.0  # longest time between checkpoints, because a step may take a minute
MAX_NONFINITE_STEPS = 20  # consecutive steps with non-finite gradients after which the run fails
OPTIMISERS = {"adamw": adamw, "muon": muon}


@dataclass(frozen=True)
class Stage:
    """Consecutive steps on windows of one recipe."""

    steps: int
    recipe: Recipe
    seconds_per_step: float = 112.0  # seconds of audio in a batch
    lr_factors: tuple[float, float] = (1.0, 1.0)  # of the learning rate, at the first and the last step
    ema_decay: float = 0.998  # of the exponential moving average of the weights, which is exported; 0: none
    objective: Objective | None = None  # instead of the training's; other weights, but the same losses


@dataclass(frozen=True)
class Settings:
    """All settings of a training. Those in `CHANGEABLE` may differ when a run is resumed."""

    stages: tuple[Stage, ...]
    dims: ModelDimensions = field(default_factory=lambda: NANO)  # of a network from scratch
    objective: Objective = FROM_SCRATCH
    seed: int = 1
    optimiser: str = "muon"
    learning_rate: float = 2e-3
    warmup: int = 200  # steps
    weight_decay: float = 0.02
    max_grad_norm: float = 5.0
    lora_rank: int = 0  # 0: train all weights
    lora_alpha: float = 16.0
    lora_targets: tuple[str, ...] = ("query", "value")
    freeze: tuple[str, ...] = ()  # prefixes of the names of frozen weights, such as "encoder"
    precision: str = "bfloat16"  # of matrix products: bfloat16, float16 (GPU only, with loss scaling) or float32
    device: str = "cpu"
    threads: int = 2  # workers on a CPU, each with a share of the batch
    seconds_at_once: float = 1e9  # audio of one forward pass; less needs less memory, with the same result
    save_every: int = 250  # steps
    evaluate_every: int = 0  # steps between evaluations; 0: never
    patience: int = 0  # evaluations without improvement after which training stops; 0: never

    @property
    def n_steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    @property
    def dtype(self) -> torch.dtype:
        return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[self.precision]

    def stage_at(self, step: int) -> tuple[Stage, float]:
        """The stage of `step`, and how much of it is done, from 0 to 1."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step / stage.steps
            step -= stage.steps
        raise TrainingError(f"the training has {self.n_steps} steps only")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate at `step`."""
        stage, progress = self.stage_at(step)
        first, last = stage.lr_factors
        return self.learning_rate * (first + (last - first) * progress) * min((step + 1) / max(self.warmup, 1), 1.0)

    def evaluates_after(self, step: int) -> bool:
        """Whether there is an evaluation after `step` steps."""
        return self.evaluate_every > 0 and (step % self.evaluate_every == 0 or step == self.n_steps)

    def stage_ends(self) -> set[int]:
        """The steps at which stages end."""
        return {int(end) for end in np.cumsum([stage.steps for stage in self.stages])}


CHANGEABLE = ("stages", "warmup", "device", "threads", "seconds_at_once", "save_every", "evaluate_every", "patience")


# --------------------------------------------------------------------------------------------------
# Batches
# --------------------------------------------------------------------------------------------------


def make_batch(step: int, settings: Settings, store: FeatureStore, vocabulary: Vocabulary) -> TrainingBatch:
    """The windows of a step, from a generator seeded by its number; all of one length."""
    stage, _ = settings.stage_at(step)
    recipe = stage.recipe
    rng = np.random.default_rng([settings.seed, step])
    seconds = float(rng.choice(recipe.lengths))
    n_windows = max(int(stage.seconds_per_step / max(seconds, recipe.pad_to_seconds)), 1)
    windows = [mix_window(rng, store, recipe, seconds) for _ in range(n_windows)]
    targets = []
    for window in windows:
        clips = [store.clips[int(i)] for i in rng.integers(len(store.clips), size=6)]
        earlier = [clip.text for clip in clips if clip.language == window.language]
        targets.append(make_target(rng, window, vocabulary, recipe, earlier))
    return collate(windows, targets, vocabulary, settings.dims.n_text_ctx)


def collate(
    windows: Sequence[TrainingWindow], targets: Sequence[Target], vocabulary: Vocabulary, n_text_ctx: int
) -> TrainingBatch:
    """Stack windows of one length and pad their targets; truncate texts to the context."""
    mel = torch.from_numpy(np.stack([w.mel for w in windows])).transpose(1, 2)
    ctc_lengths = [len(t.ctc_targets) if t.has_ctc_targets else -1 for t in targets]
    return TrainingBatch(
        mel=mel.contiguous(),
        tokens=_pad([t.tokens[:n_text_ctx] for t in targets], vocabulary.special("eot")),
        labels=_pad([t.labels[:n_text_ctx] for t in targets], IGNORE_INDEX),
        attention_targets=_pad_spans([t.attention_targets[:n_text_ctx] for t in targets]),
        ctc_targets=_pad([t.ctc_targets for t in targets], 0),
        ctc_lengths=torch.tensor(ctc_lengths, dtype=torch.long, device="cpu"),
    )


def _pad(sequences: Sequence[Sequence[int]], fill: int) -> Tensor:
    shape = len(sequences), max(1, *map(len, sequences))
    out = torch.full(shape, fill, dtype=torch.long, device="cpu")
    for i, sequence in enumerate(sequences):
        out[i, : len(sequence)] = torch.tensor(sequence, dtype=torch.long, device="cpu")
    return out


def _pad_spans(sequences: Sequence[Sequence[tuple[int, int]]]) -> Tensor:
    """Convert frames of 10 ms to encoder positions of 20 ms, and pad."""
    shape = len(sequences), max(1, *map(len, sequences)), 2
    out = torch.full(shape, -1, dtype=torch.long, device="cpu")
    for i, sequence in enumerate(sequences):
        positions = [(a // 2, -(-b // 2)) for a, b in sequence]
        out[i, : len(sequence)] = torch.tensor(positions, dtype=torch.long, device="cpu").view(-1, 2)
    return out


def _prefetched_batches(
    first: int, settings: Settings, store: FeatureStore, vocabulary: Vocabulary
) -> Iterator[tuple[int, TrainingBatch]]:
    """All steps from `first` on with their batches; each batch is made during the step before."""
    with ThreadPoolExecutor(1) as pool:
        pending: Future[TrainingBatch] | None = None
        for step in range(first, settings.n_steps):
            batch = (pending or pool.submit(make_batch, step, settings, store, vocabulary)).result()
            if step + 1 < settings.n_steps:
                pending = pool.submit(make_batch, step + 1, settings, store, vocabulary)
            yield step, batch


def split_batch(batch: TrainingBatch, count: int) -> list[TrainingBatch]:
    """Split a batch into `count` shares, fewer if it has fewer windows."""
    count = min(count, len(batch.mel))
    shares = zip(*(getattr(batch, f.name).tensor_split(count) for f in fields(TrainingBatch)), strict=True)
    return [TrainingBatch(*share) for share in shares]


# --------------------------------------------------------------------------------------------------
# A run
# --------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """The state of a training: everything that a checkpoint holds."""

    network: TrainingNetwork
    optimisers: list[torch.optim.Optimizer]
    ema: dict[str, Tensor]  # exponential moving average of the trainable weights; empty: none
    step: int = 0
    history: list[tuple[int, float, float, float]] = field(default_factory=list)  # step; text, CTC, attention loss
    evaluations: list[tuple[int, float]] = field(default_factory=list)  # step; error rate
    loss_scale: float = 1.0  # for float16 gradients
    n_nonfinite: int = 0  # consecutive steps with non-finite gradients
    first_step: int = 0  # the step at which this process began or resumed

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trainable weights, by name."""
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    def save(self, path: Path, settings: Settings) -> None:
        """Write a checkpoint, atomically."""
        state = {
            "step": self.step,
            "weights": {name: p.detach() for name, p in self.trainable().items()},
            "ema": self.ema,
            "optimisers": [o.state_dict() for o in self.optimisers],
            "history": self.history,
            "evaluations": self.evaluations,
            "loss_scale": self.loss_scale,
            "settings": {f.name: repr(getattr(settings, f.name)) for f in fields(settings) if f.name not in CHANGEABLE},
        }
        with atomic_write(path) as file:
            torch.save(state, file)

    def load(self, path: Path, settings: Settings) -> None:
        """Resume from a checkpoint of `save`.

        Raises
        ------
        TrainingError
            The checkpoint is damaged, or was made with other settings, or of another model.
        """
        state = _read_checkpoint(path, settings.device)
        for name, saved in state.get("settings", {}).items():
            now = repr(getattr(settings, name, None))
            if saved != now:
                raise TrainingError(
                    f"{path} was made with {name}={saved}, and now it is {now}: resume with the old value, or choose "
                    "another output folder to start anew"
                )
        trainable, weights = self.trainable(), state["weights"]
        if set(trainable) - set(weights) or any(trainable[name].shape != weights[name].shape for name in trainable):
            raise TrainingError(f"{path} is of another model; choose another output folder")
        with torch.no_grad():
            for name, parameter in trainable.items():
                parameter.copy_(weights[name])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.ema, self.step, self.history = state["ema"], state["step"], state["history"]
        self.evaluations, self.loss_scale = state["evaluations"], state["loss_scale"]
        self.first_step = self.step


def _read_checkpoint(path: Path, device: str) -> dict[str, Any]:
    try:
        state = dict(torch.load(path, weights_only=True, map_location=device))
    except (RuntimeError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{path} is damaged and cannot be resumed from: delete it to start anew") from error
    needed = {"step", "weights", "ema", "optimisers", "history", "evaluations", "loss_scale"}
    if missing := needed - set(state):
        raise TrainingError(f"{path} is not a checkpoint of a training: it lacks {', '.join(sorted(missing))}")
    return state


def start(settings: Settings, vocabulary: Vocabulary, model: Whisper | None = None) -> Run:
    """Begin a run with random weights, or with those of `model`, which the training changes."""
    torch.manual_seed(settings.seed)
    if model is None:
        network = TrainingNetwork.from_scratch(settings.dims, vocabulary, settings.objective, settings.dtype)
    else:
        network = TrainingNetwork(model.float(), vocabulary, settings.objective, settings.dtype)
    if settings.lora_rank:
        lora.add_adapters(network.model, settings.lora_rank, settings.lora_alpha, settings.lora_targets)
    network.to(settings.device).train()
    for name, parameter in network.model.named_parameters():
        if any(name.startswith(prefix) for prefix in settings.freeze):
            parameter.requires_grad_(False)
    trainable = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    if not trainable:
        raise TrainingError("there is nothing to train: all weights are frozen")
    optimisers = OPTIMISERS[settings.optimiser](trainable, settings.learning_rate, settings.weight_decay)
    ema: dict[str, Tensor] = {}
    if any(stage.ema_decay for stage in settings.stages):
        ema = {name: p.detach().clone() for name, p in trainable}
    return Run(network, optimisers, ema, loss_scale=2.0**14 if settings.precision == "float16" else 1.0)


Watch = Callable[[Run, Settings, float], None]  # gets the run, and the seconds of audio trained on per second


def train(
    settings: Settings,
    store: FeatureStore,
    vocabulary: Vocabulary,
    folder: str | os.PathLike[str],
    *,
    model: Whisper | None = None,
    until: int | None = None,
    evaluate: Callable[[Whisper], float] | None = None,
    watch: Watch | None = None,
    stopped: Callable[[], bool] | None = None,
) -> Run:
    """Train, or resume the run in `folder`.

    Parameters
    ----------
    settings, store, vocabulary
        Settings, data, and vocabulary indices.
    folder
        Gets ``last.ckpt`` every `Settings.save_every` steps and every five minutes, one
        ``step-N.ckpt`` at the end of every stage but the last, and ``best.ckpt`` at the best
        evaluation.
    model
        The model to fine-tune; None trains from scratch.
    until
        Stop before this step.
    evaluate
        Returns the error rate of a model on other data; called every `Settings.evaluate_every`
        steps.
    watch
        Called every 25 steps, after every evaluation, and at the end.
    stopped
        Called after every step; if it returns true, the run is saved and returned as it is.

    Returns
    -------
    Run
        The state at the end; `load_best` and `export` make a model of it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run = start(settings, vocabulary, model)
    if (folder / LAST).exists():
        run.load(folder / LAST, settings)
    workers = single_thread_workers(settings.threads if settings.device == "cpu" else 1, settings.device)
    began, saved, trained = time.perf_counter(), time.perf_counter(), 0.0
    for step, batch in _prefetched_batches(run.step, settings, store, vocabulary):
        if step == until or _out_of_patience(run, settings):
            break
        run.history.append((step, *train_step(run, batch, settings, workers)))
        trained += _seconds(batch)
        stop = stopped is not None and stopped()
        last = stop or run.step in (settings.n_steps, until)
        evaluated = evaluate is not None and settings.evaluates_after(run.step)
        if evaluate and evaluated:
            _evaluate(run, settings, folder, evaluate)
        if run.step % settings.save_every == 0 or last or time.perf_counter() - saved > SAVE_SECONDS:
            run.save(folder / LAST, settings)
            saved = time.perf_counter()
        if run.step in settings.stage_ends() - {settings.n_steps}:
            run.save(folder / f"step-{run.step}.ckpt", settings)
        if watch and (run.step % 25 == 0 or evaluated or last):
            watch(run, settings, trained / (time.perf_counter() - began))
        if stop:
            break
    workers.shutdown()
    return run


def _evaluate(run: Run, settings: Settings, folder: Path, evaluate: Callable[[Whisper], float]) -> None:
    error = evaluate(export(run))
    best = min((e for _, e in run.evaluations), default=math.inf)
    run.evaluations.append((run.step, error))
    if error < best:
        run.save(folder / BEST, settings)
    run.save(folder / LAST, settings)  # else a run resumed from before would evaluate again, and may stop elsewhere


def _out_of_patience(run: Run, settings: Settings) -> bool:
    """Whether the last `Settings.patience` evaluations were no better than the best before them."""
    if not settings.patience or len(run.evaluations) <= settings.patience:
        return False
    best = int(np.argmin([error for _, error in run.evaluations]))
    return len(run.evaluations) - 1 - best >= settings.patience


def load_best(run: Run, settings: Settings, folder: str | os.PathLike[str]) -> Run:
    """Go back to the weights of the best evaluation, if there was one."""
    path = Path(folder) / BEST
    if run.evaluations and path.exists():
        step, evaluations = run.step, run.evaluations
        run.load(path, settings)
        log.info("the best of %d evaluations was at step %d (of %d)", len(evaluations), run.step, step)
        run.evaluations = evaluations
    return run


# --------------------------------------------------------------------------------------------------
# A step
# --------------------------------------------------------------------------------------------------


def train_step(run: Run, batch: TrainingBatch, settings: Settings, workers: Executor) -> tuple[float, float, float]:
    """Run one step; returns the text, CTC and attention losses.

    Each worker takes a share of the windows with a single thread. Operations on a small model are
    short: splitting each of them over the cores costs more in synchronisation than it saves, more
    so on a busy machine.
    """
    parameters = list(run.trainable().values())
    n_shares = max(
        settings.threads if settings.device == "cpu" else 1, math.ceil(_seconds(batch) / settings.seconds_at_once)
    )
    run.network.objective = settings.stage_at(run.step)[0].objective or settings.objective
    counts = batch.counts  # of the whole batch: the losses of all shares then add up to those of the batch

    def backward(share: TrainingBatch) -> tuple[list[float], tuple[Tensor | None, ...]]:
        losses = run.network(share.to(torch.device(settings.device)), counts)
        gradients = torch.autograd.grad(run.network.total(losses) * run.loss_scale, parameters, allow_unused=True)
        return [x.item() for x in (losses.text, losses.ctc, losses.attention)], gradients

    sums = [0.0, 0.0, 0.0]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    for losses, gradients in workers.map(backward, split_batch(batch, n_shares)):  # in order: same rounding
        sums = [a + b for a, b in zip(sums, losses, strict=True)]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and parameter.grad is not None:
                parameter.grad += gradient
    if _unscale_and_clip(run, parameters, settings):
        _update_weights(run, settings, workers)
    run.step += 1
    return sums[0], sums[1], sums[2]


def _seconds(batch: TrainingBatch) -> float:
    """Seconds of audio in a batch."""
    return batch.mel.shape[0] * batch.mel.shape[2] / 100


def _unscale_and_clip(run: Run, parameters: list[nn.Parameter], settings: Settings) -> bool:
    """Unscale and clip the gradients; False if they are not finite, which skips the step."""
    for parameter in parameters:
        if parameter.grad is not None and run.loss_scale != 1.0:
            parameter.grad /= run.loss_scale
    norm = nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
    finite = bool(norm.isfinite())
    run.n_nonfinite = 0 if finite else run.n_nonfinite + 1
    if settings.precision == "float16":  # dynamic loss scaling
        run.loss_scale = min(run.loss_scale * 2 ** (1 / 500), 2.0**20) if finite else run.loss_scale / 2
    if run.n_nonfinite >= MAX_NONFINITE_STEPS:
        raise TrainingError(
            f"the gradients of {MAX_NONFINITE_STEPS} consecutive steps were not finite: try a smaller learning rate "
            "or float32"
        )
    return finite


def _update_weights(run: Run, settings: Settings, workers: Executor) -> None:
    rate = settings.learning_rate_at(run.step)
    for optimiser in run.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate
    list(workers.map(lambda optimiser: optimiser.step(), run.optimisers))
    decay = min(settings.stage_at(run.step)[0].ema_decay, (run.step + 1) / (run.step + 10))
    if run.ema:
        with torch.no_grad():
            for name, parameter in run.trainable().items():
                run.ema[name].lerp_(parameter, 1 - decay)


def single_thread_workers(count: int, device: str = "cpu") -> ThreadPoolExecutor:
    """Workers that compute with one torch thread each."""
    if device != "cpu":
        return ThreadPoolExecutor(count)
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


# --------------------------------------------------------------------------------------------------
# Export
# --------------------------------------------------------------------------------------------------


def export(run: Run) -> Whisper:
    """The averaged weights as an ordinary `Whisper` with the full vocabulary, on the CPU.

    Of a reduced vocabulary, all unused tokens get the same embedding.
    """
    state, vectors = _averaged_weights(run)
    vocabulary, dims = run.network.vocabulary, run.network.dims
    if vocabulary.unused_index is not None:
        n_vocab = vocabulary.tokenizer.encoding.n_vocab
        embedding = vectors[vocabulary.unused_index].repeat(n_vocab, 1)
        token_ids = torch.tensor(vocabulary.token_ids, dtype=torch.long, device="cpu")
        embedding[token_ids] = vectors[: vocabulary.unused_index]
        begin = vocabulary.tokenizer.timestamp_begin
        embedding[begin : begin + N_TIMESTAMPS] = vectors[vocabulary.timestamp_begin :]
        state["decoder.token_embedding.weight"] = embedding
        dims = ModelDimensions(**{**vars(dims), "n_vocab": n_vocab})
    model = Whisper(dims)
    model.load_state_dict(state)
    objective = run.network.objective
    guided = objective.guided_heads if objective.attention_weight else ()
    heads = [(layer, head) for layer, head in guided if layer < dims.n_text_layer and head < dims.n_text_head]
    if heads:
        mask = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool, device="cpu")
        mask[tuple(zip(*heads, strict=True))] = True
        model.set_alignment_mask(mask)
    else:
        model.register_buffer("alignment_heads", run.network.model.alignment_heads.cpu(), persistent=False)
    return model.eval()


def _averaged_weights(run: Run) -> tuple[dict[str, Tensor], Tensor]:
    """The averaged state of the model, without adapters, and the averaged embedding."""
    network, trainable = run.network, run.trainable()
    current = {name: p.detach().clone() for name, p in trainable.items()}
    with torch.no_grad():
        for name in run.ema:
            trainable[name].copy_(run.ema[name])
        vectors = network.embedding().detach().cpu().clone()
        state = {name: t.detach().cpu().clone() for name, t in lora.merged_state_dict(network.model).items()}
        for name, parameter in trainable.items():
            parameter.copy_(current[name])
    return state, vectors
