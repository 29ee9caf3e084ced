"""Requests in any company: each ends as it would alone, whatever becomes of the others, and everything is given back.

No weights: the mock's logits follow from the sound and the tokens before, so that whatever gets mixed up shows.
"""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import whisper
from whisper.engine.engine import Engine, Handle, busy_seconds, configure, engine_for
from whisper.engine.operations import Deliver, DetectLanguage, Encode, NextDelivery, RequestCoroutine, Sample, Spawn
from whisper.engine.scheduler import Group
from whisper.errors import CancelledError, OptionError
from whisper.runtime import select
from whisper.runtime.interface import EncodedWindow
from whisper.sampling.plan import SamplingPlan
from whisper.sampling.token_rules import RowRules
from whisper.sampling.window_sampling import WindowSampling

from ..models import random_model
from ..runners import EOT, MOCK_DIMS, NO_SPEECH, SOT, TIMESTAMPS, MockRunner


def plan(kind: str, seed: int) -> SamplingPlan:
    """One of several kinds of decoding; `seed` settles its details."""
    rng = random.Random(seed)
    ids = [np.array(sorted(rng.sample(range(EOT), 3) + extra), dtype=np.int32) for extra in ([], [EOT])]
    prompt = tuple(rng.sample(range(EOT), rng.randrange(6)))
    options: dict[str, Any] = {
        "greedy": {},
        "beams": {"n_group": rng.randint(2, 4), "max_candidates": rng.randint(2, 4)},
        "sampled": {"temperature": 0.9, "seed": seed},
        "best of": {"temperature": 0.7, "n_group": 3, "seed": seed},
    }[kind]
    limit = rng.choice([None, 5])
    rules = RowRules(ids[0], ids[1], kind != "sampled", limit, EOT, TIMESTAMPS, MOCK_DIMS.n_vocab, None)
    return SamplingPlan((*prompt, SOT), len(prompt), rng.randint(1, 20), rules, EOT, NO_SPEECH, **options)


KINDS = ["greedy", "beams", "sampled", "best of"]


@dataclass(frozen=True)
class Work:
    """What a request does, and where it goes wrong."""

    seed: int
    n_windows: int = 2
    raises_at: int = -1  # window before which its own code raises
    broken: str = ""  # "encode" or "step": there the runner fails for its sound
    n_parts: int = 0  # of the same work, side by side

    @property
    def n_rows(self) -> int:
        return 4

    def mel(self, window: int) -> torch.Tensor:
        value = self.seed + window / 16 + {"": 0, "encode": 10_000, "step": 20_000}[self.broken]
        return torch.full((2, 3), float(value))

    def steps(self, group: Group | None = None) -> RequestCoroutine[Any]:
        if self.n_parts:
            return self.in_parts(group or Group(2))
        return self.in_turn()

    async def in_turn(self) -> Any:
        found = []
        for window in range(self.n_windows):
            if window == self.raises_at:
                raise ValueError(f"work {self.seed}")
            audio = await Encode(self.mel(window))
            if window == 0:
                found.append(await DetectLanguage(audio, SOT, (1, 2, 3)))
            for hotter in range(1 + (self.seed + window) % 3):  # as fallback does, with the audio kept
                kind = KINDS[(self.seed + hotter + window) % 4]
                sampling = await Sample(WindowSampling(plan(kind, self.seed + hotter), audio))
                assert sampling.done
                found.append((sampling.candidates(), sampling.no_speech_prob))
            del audio, sampling  # a request has one window at a time
            await Deliver([{"id": window, "seek": self.seed}])  # type: ignore[typeddict-item]
        return found

    async def in_parts(self, group: Group) -> Any:
        works = [Work(self.seed + i, self.n_windows, self.raises_at) for i in range(self.n_parts)]
        parts = [await Spawn(work.in_turn(), 4, group) for work in works]
        found = []
        for part in parts:
            while (news := await NextDelivery(part)) is not None:
                found += news.segments
                await news
        return found


@cache
def alone(work: Work) -> Any:
    return Engine(MockRunner()).submit(work.steps(), work.n_rows).result()


class BreakableRunner(MockRunner):
    """Fails for some sounds, whoever's windows run beside them."""

    def encode(self, mels: Any) -> Any:
        if any(10_000 <= mel[0, 0] < 20_000 for mel in mels):
            raise RuntimeError("cannot encode")
        return super().encode(mels)

    def logits(self, window: EncodedWindow, tokens: list[int]) -> torch.Tensor:
        if window.features.item() >= 20_000 and len(tokens) > 8:
            raise RuntimeError("cannot decode")
        return super().logits(window, tokens)


def assert_all_given_back(engine: Engine) -> None:
    runner = engine.runner
    assert isinstance(runner, MockRunner)
    assert not runner.taken
    core = engine.core
    assert core.is_idle
    assert not core.has_work
    assert not core.is_busy
    assert not engine._waiting
    scheduler = engine.scheduler
    assert (scheduler.used.n_rows, scheduler.used.n_bytes, scheduler.used.n_running) == (0, 0, 0)
    gc.collect()
    assert not runner.windows


works = st.builds(
    Work,
    seed=st.integers(0, 11),
    n_windows=st.integers(0, 2),
    raises_at=st.sampled_from([-1, -1, -1, 1]),
    broken=st.sampled_from(["", "", "", "", "encode", "step"]),
)


@cache
def expected(work: Work) -> Any:
    """A result, or an error's text."""
    try:
        return Engine(BreakableRunner()).submit(work.steps(), work.n_rows).result()
    except (ValueError, RuntimeError) as error:
        return str(error)


def outcome(handle: Handle) -> Any:
    try:
        return handle.result()
    except (ValueError, RuntimeError) as error:
        return str(error)


# -- one thread ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.lists(works, min_size=1, max_size=6), st.integers(1, 20), st.integers(1, 4), st.randoms(use_true_random=False)
)
def test_each_ends_as_it_would_alone(todo: list[Work], max_rows: int, encoder_batch: int, rng: random.Random) -> None:
    engine = Engine(BreakableRunner(), max_rows=max_rows, encoder_batch=encoder_batch)
    caller = engine.caller()
    handles = [engine.submit(w.steps(), w.n_rows, caller=caller if i % 2 else None) for i, w in enumerate(todo)]
    try:
        cancelled = {i for i in range(len(todo)) if rng.random() < 0.2}
        order = list(enumerate(handles))
        rng.shuffle(order)
        for i, handle in order:
            for j in list(cancelled):
                if rng.random() < 0.5 and not handles[j].done:
                    handles[j].cancel()
                    assert handles[j].done  # nobody was at the runner
            if rng.random() < 0.5:
                for _ in handle if not todo[i].broken and todo[i].raises_at < 0 and i not in cancelled else ():
                    pass
            found = outcome(handle)
            assert found in (
                [expected(todo[i])] if i not in cancelled else [expected(todo[i]), "the transcription was cancelled"]
            )
        assert_all_given_back(engine)
    finally:
        for handle in handles:  # where hypothesis has no more choices to give, it ends the test in its middle
            handle.cancel()


def test_the_ceiling_holds_and_who_comes_first_goes_first() -> None:
    runner = MockRunner()
    engine = Engine(runner, max_rows=8)
    started: list[int] = []

    async def noted(work: Work) -> Any:
        started.append(work.seed)
        return await work.steps()

    handles = [engine.submit(noted(Work(i)), 4) for i in range(9)]
    for handle in handles:
        handle.result()
    assert started == list(range(9))
    assert 4 < runner.most_rows <= 8
    assert runner.most_windows == 2

    small = Engine(MockRunner(), max_rows=64, memory_limit=1)  # too little for anybody: one by one
    handles = [small.submit(Work(i).steps(), 4) for i in range(3)]
    assert [h.result() for h in handles] == [alone(Work(i)) for i in range(3)]
    assert small.runner.most_windows == 1  # type: ignore[attr-defined]


def test_rows_share_steps() -> None:
    apart, together = MockRunner(), MockRunner()
    for i in range(8):
        Engine(apart).submit(Work(i).steps(), 4).result()
    engine = Engine(together)
    handles = [engine.submit(Work(i).steps(), 4) for i in range(8)]
    for handle in handles:
        handle.result()
    assert together.n_forward < apart.n_forward / 3


def test_segments_come_while_the_rest_is_not_done_and_closing_the_iterator_ends_all() -> None:
    engine = Engine(MockRunner())
    handle = engine.submit(Work(1, n_windows=3).steps(), 4)
    segments = iter(handle)
    assert next(segments)["id"] == 0
    assert not handle.done
    segments.close()  # type: ignore[attr-defined]
    assert handle.done
    with pytest.raises(CancelledError):
        handle.result()
    assert_all_given_back(engine)
    assert [s["id"] for s in engine.submit(Work(1, n_windows=3).steps(), 4)] == [0, 1, 2]


def test_parts_run_side_by_side_and_come_in_order() -> None:
    engine = Engine(MockRunner(), max_rows=12)
    whole = engine.submit(Work(3, n_parts=6).steps(), 4)
    other = engine.submit(Work(9).steps(), 4)
    assert [(s["seek"], s["id"]) for s in whole] == [(3 + i, j) for i in range(6) for j in range(2)]
    assert other.result() == alone(Work(9))
    assert 4 < engine.runner.most_rows <= 12  # type: ignore[attr-defined]
    assert_all_given_back(engine)


@pytest.mark.parametrize("end", ["error", "cancel", "close"])
def test_parts_end_with_the_whole(end: str) -> None:
    engine = Engine(MockRunner(), max_rows=12)
    whole = engine.submit(Work(3, n_parts=6, raises_at=1 if end == "error" else -1).steps(), 4)
    segments = iter(whole)
    next(segments)
    if end == "error":
        with pytest.raises(ValueError, match="work 3"):
            list(segments)
    elif end == "close":
        segments.close()  # type: ignore[attr-defined]
    else:
        whole.cancel()
        with pytest.raises(CancelledError):
            list(segments)
    assert_all_given_back(engine)


def test_code_of_a_request_may_use_the_engine_itself() -> None:
    engine = Engine(MockRunner())

    async def outer() -> Any:
        audio = await Encode(torch.ones(2, 3))
        inner = engine.submit(Work(5).steps(), 4).result()
        sampling = await Sample(WindowSampling(plan("greedy", 1), audio))
        return inner, sampling.candidates()

    side = engine.submit(Work(6).steps(), 4)
    assert engine.submit(outer(), 4).result()[0] == alone(Work(5))
    assert side.result() == alone(Work(6))
    assert_all_given_back(engine)


def test_who_waits_can_be_told_to_stop() -> None:
    engine = Engine(MockRunner())
    polls = iter([False] * 5 + [True])
    handle = engine.submit(Work(1, n_windows=1000).steps(), 4, caller=engine.caller(lambda: next(polls)))
    with pytest.raises(CancelledError, match="cancelled"):
        handle.result()
    assert_all_given_back(engine)


def test_ctrl_c_ends_the_request_of_who_turned_the_crank_and_no_other() -> None:
    class Interrupted(MockRunner):
        at = -1

        def logits(self, window: EncodedWindow, tokens: list[int]) -> torch.Tensor:
            if self.n_forward == self.at:
                self.at = -1
                raise KeyboardInterrupt
            return super().logits(window, tokens)

    for at in (2, 5, 9, 14):
        runner = Interrupted()
        engine = Engine(runner)
        handles = [engine.submit(Work(i).steps(), 4) for i in range(3)]
        runner.at = at
        with pytest.raises(KeyboardInterrupt):
            handles[0].result()
        assert handles[0].done
        assert [h.result() for h in handles[1:]] == [alone(Work(1)), alone(Work(2))]
        assert_all_given_back(engine)


# -- many threads -------------------------------------------------------------------------------------------


def in_threads(functions: list[Callable[[], None]]) -> None:
    errors: list[BaseException] = []

    def run(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:  # raised again in the thread of the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(f,), daemon=True) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a thread waits for ever"
    if errors:
        raise errors[0]


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(works, max_size=4), min_size=2, max_size=5), st.integers(1, 24))
def test_threads_share_batches_and_each_gets_its_own(todo: list[list[Work]], max_rows: int) -> None:
    engine = Engine(BreakableRunner(), max_rows=max_rows)

    def ask(some: list[Work]) -> None:
        caller = engine.caller()
        handles = [engine.submit(w.steps(), w.n_rows, caller=caller) for w in some]
        for work, handle in zip(some, handles, strict=True):
            assert outcome(handle) == expected(work)

    in_threads([lambda some=some: ask(some) for some in todo])  # type: ignore[misc]
    assert_all_given_back(engine)


def test_the_code_of_a_request_runs_where_its_result_is_waited_for() -> None:
    engine = Engine(MockRunner())
    seen: dict[int, set[int]] = {}

    async def noted(i: int) -> Any:
        steps = Work(i, n_windows=4).steps()
        answer = None
        while True:
            seen.setdefault(i, set()).add(threading.get_ident())
            try:
                answer = await steps.send(answer)
            except StopIteration as end:
                return end.value

    ready = threading.Barrier(4)

    def ask(i: int) -> None:
        ready.wait()
        assert engine.submit(noted(i), 4).result() == alone(Work(i, n_windows=4))

    in_threads([lambda i=i: ask(i) for i in range(4)])  # type: ignore[misc]
    assert all(len(threads) == 1 for threads in seen.values())
    assert len(set().union(*seen.values())) == 4


def test_a_slow_callback_holds_up_nobody_else() -> None:
    engine = Engine(MockRunner())
    let_go = threading.Event()

    async def slow() -> Any:
        await Encode(torch.ones(2, 3))
        assert let_go.wait(30)

    def ask() -> None:
        assert engine.submit(Work(2).steps(), 4).result() == alone(Work(2))
        let_go.set()

    in_threads([lambda: engine.submit(slow(), 4).result(), ask])
    assert_all_given_back(engine)


@pytest.mark.parametrize("n_rounds", [1, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
def test_two_thousand_requests(n_rounds: int) -> None:
    """A soak: threads, lists, iterators that are closed early, errors, cancels, parts; nothing is left."""
    engine = Engine(BreakableRunner(), max_rows=48)
    kinds = [
        Work(seed, n, broken=broken, raises_at=raises_at, n_parts=parts)
        for seed in range(4)
        for n, broken, raises_at, parts in (
            (1, "", -1, 0), (1, "", -1, 0), (2, "", -1, 0), (1, "encode", -1, 0), (1, "step", -1, 0), (2, "", 1, 0),
            (1, "", -1, 2),
        )
    ]  # fmt: skip
    answers = [expected(work) for work in kinds]
    ended: list[str] = []

    def ask(number: int) -> None:
        rng = random.Random(number)
        for _ in range(n_rounds):
            caller = engine.caller() if rng.random() < 0.5 else None
            chosen = [rng.randrange(len(kinds)) for _ in range(25)]
            handles = [engine.submit(kinds[k].steps(), 4, caller=caller) for k in chosen]
            for k, handle in zip(chosen, handles, strict=True):
                way = rng.random()
                if way < 0.15:
                    handle.cancel()
                    ended.append("cancelled")
                elif way < 0.25 and isinstance(answers[k], list):
                    next(iter(handle), None)
                    ended.append("closed")
                else:
                    assert outcome(handle) == answers[k]
                    ended.append("done")

    in_threads([lambda i=i: ask(i) for i in range(4)])  # type: ignore[misc]
    assert len(ended) == 100 * n_rounds
    assert ended.count("cancelled") > 5 * n_rounds
    assert_all_given_back(engine)


# -- the engine of a model ----------------------------------------------------------------------------------


def test_the_time_of_the_device_is_counted() -> None:
    model = random_model(0)
    assert busy_seconds(model) == 0
    began = time.perf_counter()
    whisper.transcribe(model, np.zeros(16000, np.float32), language="en", temperature=0.0, sample_len=4)
    assert 0 < busy_seconds(model) < time.perf_counter() - began


def test_configure(monkeypatch: pytest.MonkeyPatch) -> None:
    model, runner = random_model(1, n_state=32), MockRunner()
    monkeypatch.setattr(select, "runner_for", lambda model, fp16: runner)
    configure(model, max_rows=3)
    engine = engine_for(model, True)
    assert engine is engine_for(model, True)
    assert engine.scheduler.limits.max_rows == 3
    assert engine.scheduler.limits.memory_limit
    configure(model, memory_limit=10**6)
    assert (engine.scheduler.limits.max_rows, engine.scheduler.limits.memory_limit) == (3, 10**6)
    for wrong in ({"max_rows": 0}, {"max_rows": None}, {"memory_limit": -1}, {"memory_limit": 1.5}):
        with pytest.raises(OptionError, match=f"{next(iter(wrong))} must be a whole number of at least 1"):
            configure(model, **wrong)  # type: ignore[arg-type]
    runner = MockRunner()  # as after new weights
    fresh = engine_for(model, True)
    assert fresh is not engine
    assert fresh.scheduler.limits.max_rows == 3
