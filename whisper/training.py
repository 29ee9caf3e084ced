"""Training of a small Whisper from recordings with transcripts; makes the bundled model `nano`.

`train` is a function of its settings, its data and nothing else: every step draws from a generator seeded with
the step's number, so a run that was killed continues to the same weights. Runs on the CPU in bfloat16. Fetches no
data and judges no model (`evaluation.py` does).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .composing import IGNORED, N_TIMESTAMPS, Recipe, Target, Vocabulary, Window, compose, make_target
from .datasets import Store
from .errors import TrainingError
from .learner import Batch, Learner, Losses
from .model import ModelDimensions, Whisper

log = logging.getLogger(__name__)

NANO = ModelDimensions(
    n_mels=80, n_audio_ctx=1500, n_audio_state=256, n_audio_head=4, n_audio_layer=4,
    n_vocab=51865, n_text_ctx=448, n_text_state=256, n_text_head=4, n_text_layer=2,
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """Some steps on windows of one kind."""

    steps: int
    recipe: Recipe
    seconds_per_step: float = 112.0  # sound in a step, over all its windows
    rate: tuple[float, float] = (1.0, 1.0)  # factor on the learning rate at the first and the last step
    average: float = 0.998  # of the exponential average of the weights, which is what gets exported


@dataclass(frozen=True)
class Settings:
    """A whole training."""

    stages: tuple[Stage, ...]
    dims: ModelDimensions = field(default_factory=lambda: NANO)
    seed: int = 1
    learning_rate: float = 2e-3
    warmup: int = 200  # steps
    weight_decay: float = 0.02
    save_every: int = 250
    threads: int = 2

    @property
    def n_steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

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
        return self.learning_rate * factor * min((step + 1) / self.warmup, 1.0)


# ---------------------------------------------------------------------------------------------------------
# Batches
# ---------------------------------------------------------------------------------------------------------


def make_batch(step: int, settings: Settings, store: Store, vocabulary: Vocabulary) -> Batch:
    """The windows of one step, drawn from a generator seeded by its number."""
    stage, _ = settings.stage_at(step)
    rng = np.random.default_rng([settings.seed, step])
    seconds = float(rng.choice(stage.recipe.lengths))
    n_windows = max(int(stage.seconds_per_step / max(seconds, stage.recipe.padded_to)), 1)
    windows = [compose(rng, store, stage.recipe, seconds) for _ in range(n_windows)]
    targets = []
    for window in windows:
        earlier = [c.text for c in (store.clips[int(i)] for i in rng.integers(len(store.clips), size=6))
                   if c.language == window.language]  # fmt: skip
        targets.append(make_target(rng, window, vocabulary, stage.recipe, earlier))
    return collate(windows, targets, vocabulary)


def collate(windows: Sequence[Window], targets: Sequence[Target], vocabulary: Vocabulary) -> Batch:
    """Put windows of one length and their targets into tensors."""
    mel = torch.from_numpy(np.stack([w.mel for w in windows])).transpose(1, 2)
    lengths = [len(t.letters) if t.scores_letters else -1 for t in targets]
    return Batch(
        mel.contiguous(),
        _padded([t.tokens for t in targets], vocabulary.special("eot")),
        _padded([t.expected for t in targets], IGNORED),
        _positions([t.looks for t in targets]),
        _padded([t.letters for t in targets], 0),
        torch.tensor(lengths),
    )


def _padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    out = torch.full((len(rows), max(1, *(len(row) for row in rows))), fill)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row, dtype=torch.long)
    return out


def _positions(rows: Sequence[Sequence[tuple[int, int]]]) -> Tensor:
    """Frames of 10 ms as positions of the encoder, which are of 20 ms."""
    out = torch.full((len(rows), max(1, *(len(row) for row in rows)), 2), -1)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor([(a // 2, -(-b // 2)) for a, b in row])
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


# ---------------------------------------------------------------------------------------------------------
# Optimiser
# ---------------------------------------------------------------------------------------------------------


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix updates are orthogonalised (Jordan et al. 2024), scaled to the size of Adam's.

    Matrices of one shape are handled together. The scale is that of Liu et al. 2025, arXiv:2502.16982.
    """

    def __init__(self, matrices: Sequence[nn.Parameter], lr: float, weight_decay: float) -> None:
        by_shape: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for matrix in matrices:
            by_shape.setdefault(tuple(matrix.shape), []).append(matrix)
        super().__init__([{"params": group} for group in by_shape.values()],
                         {"lr": lr, "weight_decay": weight_decay})  # fmt: skip

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # nobody passes a closure
        for group in self.param_groups:
            updates = []
            for matrix in group["params"]:
                state = self.state[matrix]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(matrix)
                state["momentum"].lerp_(matrix.grad, 0.05)
                updates.append(matrix.grad.lerp(state["momentum"], 0.95))
            directions = orthogonalise(torch.stack(updates))
            scale = 0.2 * max(group["params"][0].shape) ** 0.5
            for matrix, direction in zip(group["params"], directions, strict=True):
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(direction, alpha=-group["lr"] * scale)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Bring all singular values of ``(n, rows, columns)`` near 1, by five Newton-Schulz steps in bfloat16."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.transpose(1, 2) if tall else matrices).to(torch.bfloat16)
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).to(x.dtype)
    for _ in range(5):
        a = x @ x.transpose(1, 2)
        b = -4.7750 * a + 2.0315 * (a @ a)
        x = 3.4445 * x + b @ x
    result: Tensor = (x.transpose(1, 2) if tall else x).float()
    return result


def make_optimisers(learner: Learner, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, Adam for everything else."""
    matrices, others = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in learner.named_parameters():
        (matrices if ".blocks." in name and parameter.ndim == 2 else others).append(parameter)
    adam = torch.optim.AdamW(others, settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    square = [m for m in matrices if m.shape[0] == m.shape[1]]
    oblong = [m for m in matrices if m.shape[0] != m.shape[1]]
    rate, decay = settings.learning_rate, settings.weight_decay
    return [Muon(square, rate, decay), Muon(oblong, rate, decay), adam]  # apart, as they are stepped at once


# ---------------------------------------------------------------------------------------------------------
# The loop
# ---------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A training in progress: everything that a checkpoint holds."""

    learner: Learner
    optimisers: list[torch.optim.Optimizer]
    average: dict[str, Tensor]
    step: int = 0
    history: list[tuple[int, float, float, float]] = field(default_factory=list)  # step; loss of text, letters, looks

    def save(self, path: Path) -> None:
        """Write the checkpoint whole or not at all."""
        state = {
            "step": self.step, "learner": self.learner.state_dict(), "average": self.average,
            "optimisers": [o.state_dict() for o in self.optimisers], "history": self.history,
        }  # fmt: skip
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint that `save` has written."""
        state = torch.load(path, weights_only=True)
        self.learner.load_state_dict(state["learner"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.average, self.step, self.history = state["average"], state["step"], state["history"]


def start(settings: Settings, vocabulary: Vocabulary) -> Run:
    """Fresh weights, a function of the seed."""
    torch.manual_seed(settings.seed)
    learner = Learner(settings.dims, vocabulary)
    average = {name: p.detach().clone() for name, p in learner.named_parameters()}
    return Run(learner, make_optimisers(learner, settings), average)


def train(
    settings: Settings,
    store: Store,
    vocabulary: Vocabulary,
    folder: str | os.PathLike[str],
    until: int | None = None,
) -> Run:
    """Train, or continue what stands in `folder`, up to step `until` (the end if not given).

    Writes ``last.ckpt`` every `Settings.save_every` steps and one ``step-N.ckpt`` at the end of every stage.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run = start(settings, vocabulary)
    if (folder / "last.ckpt").exists():
        run.load(folder / "last.ckpt")
    began, ends = time.perf_counter(), _ends(settings)
    workers = one_thread_each(settings.threads)
    for step, batch in _ahead(run.step, settings, store, vocabulary):
        if step == until:
            break
        run.history.append((step, *learn(run, batch, settings, workers)))
        if run.step % 25 == 0:
            recent = np.mean([h[1:] for h in run.history[-25:]], axis=0)
            log.info("step %d text %.3f letters %.3f looks %.3f rate %.5f %.1f min", run.step, *recent,
                     settings.rate_at(step), (time.perf_counter() - began) / 60)  # fmt: skip
        if run.step % settings.save_every == 0 or run.step in ends or run.step == until:
            run.save(folder / "last.ckpt")
            if run.step in ends or run.step % (2 * settings.save_every) == 0:
                run.save(folder / f"step-{run.step}.ckpt")
    return run


def _ends(settings: Settings) -> set[int]:
    return {int(end) for end in np.cumsum([stage.steps for stage in settings.stages])}


def learn(run: Run, batch: Batch, settings: Settings, workers: Executor) -> tuple[float, float, float]:
    """One step; returns the losses of text, letters and looks.

    Each worker takes a share of the windows with one thread of its own. Operations on a small model are short:
    splitting each of them over the cores costs more in waiting than it wins, more so on a busy machine.
    """
    parameters = list(run.learner.parameters())
    shares = split(batch, settings.threads)

    def grade(share: Batch) -> tuple[Losses, tuple[Tensor | None, ...]]:
        losses = run.learner(share)
        return losses, torch.autograd.grad(losses.total / len(shares), parameters, allow_unused=True)

    graded = list(workers.map(grade, shares))
    for parameter, *parts in zip(parameters, *(gradients for _, gradients in graded), strict=True):
        given = [part for part in parts if part is not None]
        parameter.grad = torch.stack(given).sum(0) if given else torch.zeros_like(parameter)
    nn.utils.clip_grad_norm_(parameters, 5.0)
    rate = settings.rate_at(run.step)
    for optimiser in run.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate
    list(workers.map(lambda optimiser: optimiser.step(), run.optimisers))
    keep = min(settings.stage_at(run.step)[0].average, (run.step + 1) / (run.step + 10))
    with torch.no_grad():
        for name, parameter in run.learner.named_parameters():
            run.average[name].lerp_(parameter, 1 - keep)
    run.step += 1
    text, letters, looks = (
        sum(getattr(g[0], k).item() for g in graded) / len(graded) for k in ("text", "letters", "looks")
    )
    return text, letters, looks


def one_thread_each(count: int) -> ThreadPoolExecutor:
    """Workers that compute with one thread each."""
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


def split(batch: Batch, count: int) -> list[Batch]:
    """Cut a batch into `count` shares of windows, fewer where there are fewer windows."""
    count = min(count, len(batch.mel))
    parts = zip(*(getattr(batch, f.name).tensor_split(count) for f in fields(Batch)), strict=True)
    return [Batch(*part) for part in parts]


# ---------------------------------------------------------------------------------------------------------
# Export
# ---------------------------------------------------------------------------------------------------------


def export(run: Run) -> Whisper:
    """The averaged weights as an ordinary Whisper with the whole vocabulary; unused ids share one row."""
    learner, vocabulary = run.learner, run.learner.vocabulary
    kept = {name: p.detach().clone() for name, p in learner.named_parameters()}
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            parameter.copy_(run.average[name])
        rows = learner.embedding().detach().clone()
        state = {k: v.clone() for k, v in learner.network.state_dict().items()}
        for name, parameter in learner.named_parameters():
            parameter.copy_(kept[name])
    table = rows[vocabulary.fill].repeat(learner.dims.n_vocab, 1)
    table[vocabulary.ids] = rows[: vocabulary.fill]
    begin = vocabulary.tokenizer.timestamp_begin
    table[begin : begin + len(rows) - vocabulary.timestamp_begin] = rows[vocabulary.timestamp_begin :]
    state["decoder.token_embedding.weight"] = table
    model = Whisper(learner.dims)
    model.load_state_dict(state)
    return model.eval()


def used_token_ids(vocabulary: Vocabulary) -> list[int]:
    """Full ids of all tokens that have a row of their own."""
    begin = vocabulary.tokenizer.timestamp_begin
    return sorted([*vocabulary.ids, *range(begin, begin + N_TIMESTAMPS)])
