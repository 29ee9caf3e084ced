"""The training loop: settings, batches, steps, checkpoints, early stop, and what is exported at the end.

A step is a function of its number and of the weights before it, so a run that is killed and started again ends in
the same weights. Trains from scratch or from a checkpoint, in whole or by small matrices beside the frozen ones
(`lora.py`), on a CPU or a GPU. Reads no manifest, chooses no settings (`training.py`) and prints nothing.
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
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import lora
from .composing import Recipe, Window, compose
from .datasets import Store
from .download import written_whole
from .errors import TrainingError
from .learner import FROM_SCRATCH, Batch, Learner, Objective
from .model import ModelDimensions, Whisper
from .optimisers import adamw, muon
from .targets import IGNORED, N_TIMESTAMPS, Target, Vocabulary, make_target

log = logging.getLogger(__name__)

NANO = ModelDimensions(
    n_mels=80, n_audio_ctx=1500, n_audio_state=256, n_audio_head=4, n_audio_layer=4,
    n_vocab=51865, n_text_ctx=448, n_text_state=256, n_text_head=4, n_text_layer=2,
)  # fmt: skip
LAST, BEST = "last.ckpt", "best.ckpt"
MOST_SPOILT = 20  # steps in a row whose gradients may be no numbers before the training is given up
OPTIMISERS = {"adamw": adamw, "muon": muon}


@dataclass(frozen=True)
class Stage:
    """Some steps on windows of one kind."""

    steps: int
    recipe: Recipe
    seconds_per_step: float = 112.0  # sound in a step, over all its windows
    rate: tuple[float, float] = (1.0, 1.0)  # factor on the learning rate at the first and the last step
    average: float = 0.998  # of the exponential average of the weights, which is what gets exported; 0: none
    objective: Objective | None = None  # another than the training's; it may weigh parts anew, but has the same parts


@dataclass(frozen=True)
class Settings:
    """A whole training. What is in `LOOSE` may change when a run is continued; nothing else may."""

    stages: tuple[Stage, ...]
    dims: ModelDimensions = field(default_factory=lambda: NANO)  # of a network from scratch
    objective: Objective = FROM_SCRATCH
    seed: int = 1
    optimiser: str = "muon"
    learning_rate: float = 2e-3
    warmup: int = 200  # steps
    weight_decay: float = 0.02
    clip_gradients: float = 5.0  # largest norm of all gradients together
    lora_rank: int = 0  # 0: all weights learn
    lora_alpha: float = 16.0
    lora_targets: tuple[str, ...] = ("query", "value")
    freeze: tuple[str, ...] = ()  # beginnings of names of weights that stay, such as "encoder"
    precision: str = "bfloat16"  # of products: bfloat16, float16 (scaled, on a GPU) or float32
    device: str = "cpu"
    threads: int = 2  # workers on a CPU, each with a share of the windows
    seconds_at_once: float = 1e9  # sound that one worker handles at a time; less needs less memory, same result
    save_every: int = 250  # steps
    evaluate_every: int = 0  # steps between evaluations; 0: never
    patience: int = 0  # evaluations without a better one after which training ends; 0: never

    @property
    def n_steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    @property
    def dtype(self) -> torch.dtype:
        return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[self.precision]

    def stage_at(self, step: int) -> tuple[Stage, float]:
        """The stage that `step` is in, and how far through it, from 0 to 1."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step / stage.steps
            step -= stage.steps
        raise TrainingError(f"the training has {self.n_steps} steps only")

    def rate_at(self, step: int) -> float:
        """The learning rate at `step`."""
        stage, part = self.stage_at(step)
        factor = stage.rate[0] + (stage.rate[1] - stage.rate[0]) * part
        return self.learning_rate * factor * min((step + 1) / max(self.warmup, 1), 1.0)

    def ends(self) -> set[int]:
        """The steps at which stages end."""
        return {int(end) for end in np.cumsum([stage.steps for stage in self.stages])}


LOOSE = ("stages", "warmup", "device", "threads", "seconds_at_once", "save_every", "evaluate_every", "patience")
SAVE_SECONDS = 300.0  # after which a checkpoint is due however few steps there were: steps may take a minute each


# ---------------------------------------------------------------------------------------------------------
# Batches
# ---------------------------------------------------------------------------------------------------------


def make_batch(step: int, settings: Settings, store: Store, vocabulary: Vocabulary) -> Batch:
    """The windows of one step, drawn from a generator seeded by its number; all of one length."""
    stage, _ = settings.stage_at(step)
    recipe = stage.recipe
    rng = np.random.default_rng([settings.seed, step])
    seconds = float(rng.choice(recipe.lengths))
    n_windows = max(int(stage.seconds_per_step / max(seconds, recipe.padded_to)), 1)
    windows = [compose(rng, store, recipe, seconds) for _ in range(n_windows)]
    targets = []
    for window in windows:
        earlier = [c.text for c in (store.clips[int(i)] for i in rng.integers(len(store.clips), size=6))
                   if c.language == window.language]  # fmt: skip
        targets.append(make_target(rng, window, vocabulary, recipe, earlier))
    return collate(windows, targets, vocabulary, settings.dims.n_text_ctx)


def collate(windows: Sequence[Window], targets: Sequence[Target], vocabulary: Vocabulary, n_text_ctx: int) -> Batch:
    """Put windows of one length and their targets into tensors; texts end where the model's context does."""
    mel = torch.from_numpy(np.stack([w.mel for w in windows])).transpose(1, 2)
    lengths = [len(t.letters) if t.scores_letters else -1 for t in targets]
    return Batch(
        mel.contiguous(),
        _padded([t.tokens[:n_text_ctx] for t in targets], vocabulary.special("eot")),
        _padded([t.expected[:n_text_ctx] for t in targets], IGNORED),
        _positions([t.looks[:n_text_ctx] for t in targets]),
        _padded([t.letters for t in targets], 0),
        torch.tensor(lengths, dtype=torch.long, device="cpu"),
    )


def _padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    out = torch.full((len(rows), max(1, *(len(row) for row in rows))), fill, dtype=torch.long, device="cpu")
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row, dtype=torch.long, device="cpu")
    return out


def _positions(rows: Sequence[Sequence[tuple[int, int]]]) -> Tensor:
    """Frames of 10 ms as positions of the encoder, which are of 20 ms."""
    out = torch.full((len(rows), max(1, *(len(row) for row in rows)), 2), -1, dtype=torch.long, device="cpu")
    for i, row in enumerate(rows):
        halved = [(a // 2, -(-b // 2)) for a, b in row]
        out[i, : len(row)] = torch.tensor(halved, dtype=torch.long, device="cpu").view(-1, 2)
    return out


def _ahead(first: int, settings: Settings, store: Store, vocabulary: Vocabulary) -> Iterator[tuple[int, Batch]]:
    """All steps from `first` on with their batches, each made while the step before is being learnt."""
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[Batch] | None = None
        for step in range(first, settings.n_steps):
            batch = (waiting or pool.submit(make_batch, step, settings, store, vocabulary)).result()
            if step + 1 < settings.n_steps:
                waiting = pool.submit(make_batch, step + 1, settings, store, vocabulary)
            yield step, batch


def split(batch: Batch, count: int) -> list[Batch]:
    """Cut a batch into `count` shares of windows, fewer where there are fewer windows."""
    count = min(count, len(batch.mel))
    parts = zip(*(getattr(batch, f.name).tensor_split(count) for f in fields(Batch)), strict=True)
    return [Batch(*part) for part in parts]


# ---------------------------------------------------------------------------------------------------------
# A run
# ---------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A training in progress: everything that a checkpoint holds."""

    learner: Learner
    optimisers: list[torch.optim.Optimizer]
    average: dict[str, Tensor]  # of the weights that learn; empty: none is kept
    step: int = 0
    history: list[tuple[int, float, float, float]] = field(default_factory=list)  # step; loss of text, letters, looks
    evaluations: list[tuple[int, float]] = field(default_factory=list)  # step; error, the smaller the better
    scale: float = 1.0  # of the loss, where gradients are float16
    spoilt: int = 0  # steps in a row whose gradients were no numbers
    began: int = 0  # the step at which this process took over

    def learning(self) -> dict[str, nn.Parameter]:
        """The weights that learn, by name."""
        return {name: p for name, p in self.learner.named_parameters() if p.requires_grad}

    def save(self, path: Path, settings: Settings) -> None:
        """Write the checkpoint whole or not at all."""
        state = {
            "step": self.step, "learner": {name: p.detach() for name, p in self.learning().items()},
            "average": self.average, "optimisers": [o.state_dict() for o in self.optimisers],
            "history": self.history, "evaluations": self.evaluations, "scale": self.scale,
            "settings": {f.name: repr(getattr(settings, f.name)) for f in fields(settings) if f.name not in LOOSE},
        }  # fmt: skip
        with written_whole(path) as file:
            torch.save(state, file)

    def load(self, path: Path, settings: Settings) -> None:
        """Continue from a checkpoint that `save` has written.

        Raises
        ------
        TrainingError
            The checkpoint is broken, or was made with other settings, or of another model.
        """
        state = _read(path, settings.device)
        for name, saved in state.get("settings", {}).items():
            now = repr(getattr(settings, name, None))
            if saved != now:
                raise TrainingError(
                    f"{path} was made with {name}={saved}, and now it is {now}: continue with the old value, or choose "
                    "another output folder to begin anew"
                )
        learning = self.learning()
        unfit = set(learning) ^ (set(learning) & set(state["learner"]))
        if unfit or any(learning[n].shape != state["learner"][n].shape for n in learning):
            raise TrainingError(f"{path} is of another model; choose another output folder")
        with torch.no_grad():
            for name, parameter in learning.items():
                parameter.copy_(state["learner"][name])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.average, self.step, self.history = state["average"], state["step"], state["history"]
        self.evaluations, self.scale = state.get("evaluations", []), state.get("scale", 1.0)
        self.began = self.step


def _read(path: Path, device: str) -> dict[str, Any]:
    try:
        state = dict(torch.load(path, weights_only=True, map_location=device))
    except (RuntimeError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{path} is broken and cannot be continued from: delete it to begin anew") from error
    if missing := {"step", "learner", "average", "optimisers", "history"} - set(state):
        raise TrainingError(f"{path} is no checkpoint of a training: it lacks {', '.join(sorted(missing))}")
    return state


def start(settings: Settings, vocabulary: Vocabulary, model: Whisper | None = None) -> Run:
    """Begin a run: fresh weights, a function of the seed, or those of `model`, which is changed by the training."""
    torch.manual_seed(settings.seed)
    if model is None:
        learner = Learner.scratch(settings.dims, vocabulary, settings.objective, settings.dtype)
    else:
        learner = Learner(model.float(), vocabulary, settings.objective, settings.dtype)
    if settings.lora_rank:
        lora.add(learner.network, settings.lora_rank, settings.lora_alpha, settings.lora_targets)
    learner.to(settings.device).train()
    for name, parameter in learner.network.named_parameters():
        if name.startswith(settings.freeze or "/"):
            parameter.requires_grad_(False)
    named = [(name, p) for name, p in learner.named_parameters() if p.requires_grad]
    if not named:
        raise TrainingError("nothing is left to learn: every weight is frozen")
    optimisers = OPTIMISERS[settings.optimiser](named, settings.learning_rate, settings.weight_decay)
    averaged = any(stage.average for stage in settings.stages)
    average = {name: p.detach().clone() for name, p in named} if averaged else {}
    return Run(learner, optimisers, average, scale=2.0**14 if settings.precision == "float16" else 1.0)


Watch = Callable[[Run, Settings, float], None]  # told of a run, with the seconds of sound learnt a second


def train(
    settings: Settings,
    store: Store,
    vocabulary: Vocabulary,
    folder: str | os.PathLike[str],
    *,
    model: Whisper | None = None,
    until: int | None = None,
    evaluate: Callable[[Whisper], float] | None = None,
    watch: Watch | None = None,
    stopped: Callable[[], bool] | None = None,
) -> Run:
    """Train, or continue what stands in `folder`.

    Parameters
    ----------
    settings, store, vocabulary
        How, on what, and in which rows.
    folder
        Gets ``last.ckpt`` every `Settings.save_every` steps and every five minutes, one ``step-N.ckpt`` at the end
        of every stage but the last, and ``best.ckpt`` at the best evaluation.
    model
        To be fine-tuned; from scratch without.
    until
        Stop before this step, as a kill would.
    evaluate
        Gives the error of a model on other data, called every `Settings.evaluate_every` steps.
    watch
        Is told of the progress every 25 steps, after every evaluation, and at the end.
    stopped
        Asked after every step; where it says yes, the run is saved and returned as it is.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run = start(settings, vocabulary, model)
    if (folder / LAST).exists():
        run.load(folder / LAST, settings)
    workers = one_thread_each(settings.threads if settings.device == "cpu" else 1, settings.device)
    began, saved, learnt = time.perf_counter(), time.perf_counter(), 0.0
    for step, batch in _ahead(run.step, settings, store, vocabulary):
        if step == until or _gave_up(run, settings):
            break
        run.history.append((step, *learn(run, batch, settings, workers)))
        learnt += batch.mel.shape[0] * batch.mel.shape[2] / 100
        stop = stopped is not None and stopped()
        last = stop or run.step in (settings.n_steps, until)
        listens = evaluate is not None and _listens(run, settings)
        if evaluate and listens:
            _evaluate(run, settings, folder, evaluate)
        if run.step % settings.save_every == 0 or last or time.perf_counter() - saved > SAVE_SECONDS:
            run.save(folder / LAST, settings)
            saved = time.perf_counter()
        if run.step in settings.ends() - {settings.n_steps}:
            run.save(folder / f"step-{run.step}.ckpt", settings)
        if watch and (run.step % 25 == 0 or listens or last):
            watch(run, settings, learnt / (time.perf_counter() - began))
        if stop:
            break
    workers.shutdown()
    return run


def _listens(run: Run, settings: Settings) -> bool:
    """Whether an evaluation is due."""
    every = settings.evaluate_every
    return bool(every) and (run.step % every == 0 or run.step == settings.n_steps)


def _evaluate(run: Run, settings: Settings, folder: Path, evaluate: Callable[[Whisper], float]) -> None:
    error = evaluate(export(run))
    best = min((e for _, e in run.evaluations), default=math.inf)
    run.evaluations.append((run.step, error))
    if error < best:
        run.save(folder / BEST, settings)
    run.save(folder / LAST, settings)  # else a run continued from before would evaluate again, and may stop elsewhere


def _gave_up(run: Run, settings: Settings) -> bool:
    """Whether the last evaluations were all no better than the best before them."""
    if not settings.patience or len(run.evaluations) <= settings.patience:
        return False
    best = int(np.argmin([error for _, error in run.evaluations]))
    return len(run.evaluations) - 1 - best >= settings.patience


def best_of(run: Run, settings: Settings, folder: str | os.PathLike[str]) -> Run:
    """The run at its best evaluation where there was one, else as it is."""
    path = Path(folder) / BEST
    if run.evaluations and path.exists():
        step, evaluations = run.step, run.evaluations
        run.load(path, settings)
        log.info("the best of %d evaluations was at step %d (of %d)", len(evaluations), run.step, step)
        run.evaluations = evaluations
    return run


# ---------------------------------------------------------------------------------------------------------
# A step
# ---------------------------------------------------------------------------------------------------------


def learn(run: Run, batch: Batch, settings: Settings, workers: Executor) -> tuple[float, float, float]:
    """One step; returns the losses of text, letters and looks.

    Each worker takes a share of the windows with one thread of its own. Operations on a small model are short:
    splitting each of them over the cores costs more in waiting than it wins, more so on a busy machine.
    """
    parameters = list(run.learning().values())
    shares = split(batch, _n_shares(batch, settings))

    run.learner.objective = settings.stage_at(run.step)[0].objective or settings.objective
    counts = batch.counts  # of the whole: the sums of the shares are then what one share would give

    def grade(share: Batch) -> tuple[list[float], tuple[Tensor | None, ...]]:
        losses = run.learner(share.to(torch.device(settings.device)), counts)
        gradients = torch.autograd.grad(run.learner.total(losses) * run.scale, parameters, allow_unused=True)
        return [x.item() for x in (losses.text, losses.letters, losses.looks)], gradients

    sums = [0.0, 0.0, 0.0]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    for losses, gradients in workers.map(grade, shares):  # in their order, so that sums round alike
        sums = [a + b for a, b in zip(sums, losses, strict=True)]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and parameter.grad is not None:
                parameter.grad += gradient
    if _usable(run, parameters, settings):
        _step(run, settings, workers)
    run.step += 1
    return sums[0], sums[1], sums[2]


def _n_shares(batch: Batch, settings: Settings) -> int:
    seconds = batch.mel.shape[0] * batch.mel.shape[2] / 100
    return max(settings.threads if settings.device == "cpu" else 1, math.ceil(seconds / settings.seconds_at_once))


def _usable(run: Run, parameters: list[nn.Parameter], settings: Settings) -> bool:
    """Bring gradients to their size; False where they are no numbers, which costs the step but not the run."""
    for parameter in parameters:
        if parameter.grad is not None and run.scale != 1.0:
            parameter.grad /= run.scale
    norm = nn.utils.clip_grad_norm_(parameters, settings.clip_gradients)
    finite = bool(norm.isfinite())
    run.spoilt = 0 if finite else run.spoilt + 1
    if settings.precision == "float16":  # as large a scale as goes
        run.scale = min(run.scale * 2 ** (1 / 500), 2.0**20) if finite else run.scale / 2
    if run.spoilt >= MOST_SPOILT:
        raise TrainingError(
            f"the gradients of {MOST_SPOILT} steps in a row were no numbers: try a smaller learning rate or float32"
        )
    return finite


def _step(run: Run, settings: Settings, workers: Executor) -> None:
    rate = settings.rate_at(run.step)
    for optimiser in run.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate
    list(workers.map(lambda optimiser: optimiser.step(), run.optimisers))
    keep = min(settings.stage_at(run.step)[0].average, (run.step + 1) / (run.step + 10))
    with torch.no_grad():
        for name, parameter in run.learning().items() if run.average else ():
            run.average[name].lerp_(parameter, 1 - keep)


def one_thread_each(count: int, device: str = "cpu") -> ThreadPoolExecutor:
    """Workers that compute with one thread each."""
    if device != "cpu":
        return ThreadPoolExecutor(count)
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


# ---------------------------------------------------------------------------------------------------------
# Export
# ---------------------------------------------------------------------------------------------------------


def export(run: Run) -> Whisper:
    """The averaged weights as an ordinary Whisper with the whole vocabulary, on the CPU; unused ids share one row."""
    state, rows = _averaged(run)
    vocabulary, dims = run.learner.vocabulary, run.learner.dims
    if vocabulary.fill is not None:
        n_vocab = vocabulary.tokenizer.encoding.n_vocab
        table = rows[vocabulary.fill].repeat(n_vocab, 1)
        table[torch.tensor(vocabulary.ids, dtype=torch.long, device="cpu")] = rows[: vocabulary.fill]
        begin = vocabulary.tokenizer.timestamp_begin
        table[begin : begin + N_TIMESTAMPS] = rows[vocabulary.timestamp_begin :]
        state["decoder.token_embedding.weight"] = table
        dims = ModelDimensions(**{**vars(dims), "n_vocab": n_vocab})
    model = Whisper(dims)
    model.load_state_dict(state)
    guided = run.learner.objective.guided_heads if run.learner.objective.guidance else ()
    heads = [(layer, head) for layer, head in guided if layer < dims.n_text_layer and head < dims.n_text_head]
    if heads:
        mask = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool, device="cpu")
        mask[tuple(zip(*heads, strict=True))] = True
        model.set_alignment_mask(mask)
    else:
        model.register_buffer("alignment_heads", run.learner.network.alignment_heads.cpu(), persistent=False)
    return model.eval()


def _averaged(run: Run) -> tuple[dict[str, Tensor], Tensor]:
    """Weights of the network and rows of the embedding at their average, under the names of an ordinary network."""
    learner = run.learner
    learning = run.learning()
    kept = {name: p.detach().clone() for name, p in learning.items()}
    with torch.no_grad():
        for name in run.average:
            learning[name].copy_(run.average[name])
        rows = learner.embedding().detach().cpu().clone()
        state = {name: tensor.detach().cpu().clone() for name, tensor in lora.merged(learner.network).items()}
        for name, parameter in learning.items():
            parameter.copy_(kept[name])
    return state, rows
