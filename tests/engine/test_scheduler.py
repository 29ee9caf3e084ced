"""Admission: ceilings, order and shares, whatever is submitted and whatever ends."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper.engine.priorities import AGEING, PLAIN, Claim, Priority
from whisper.engine.scheduler import RESERVE, Group, Scheduler, Ticket

MAX_ROWS = 8
CLAIMS = st.builds(Claim, st.sampled_from(Priority), st.sampled_from("ab"))


@dataclass
class World:
    """A scheduler, its clock, and what was submitted to it."""

    max_rows: int = MAX_ROWS
    now: float = 0.0
    tickets: list[Ticket] = field(default_factory=list)
    running: list[Ticket] = field(default_factory=list)
    admitted: list[Ticket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(1, 1, self.max_rows, clock=lambda: self.now)
        self.group = Group()

    def submit(self, claim: Claim = PLAIN, n_rows: int = 1, group: Group | None = None) -> Ticket:
        ticket = Ticket((len(self.tickets),), n_rows, group or self.group, claim)
        self.tickets.append(ticket)
        self.scheduler.add(ticket)
        return ticket

    def admit(self) -> list[Ticket]:
        new = []
        while self.scheduler.may_admit():
            ticket = self.scheduler.admit()
            assert ticket is not None
            new.append(ticket)
            self.running.append(ticket)
            self.check()
        assert self.scheduler.admit() is None
        self.admitted += new
        return new

    def end(self, i: int) -> None:
        if self.running:
            self.scheduler.remove(self.running.pop(i % len(self.running)))

    def play(self, events: list[tuple], claim: Claim | None = None) -> None:
        """Do what `EVENTS` say, and admit after each; with `claim` for all that is submitted."""
        for what, value, n_rows in events:
            if what == "submit":
                self.submit(claim or value, n_rows)
            elif what == "end":
                self.end(value)
            else:
                self.now += value
            self.admit()

    def check(self) -> None:
        """No ceiling is broken, but by a single request that is wider than it."""
        n_rows = sum(t.n_rows for t in self.running)
        assert n_rows == self.scheduler.used.n_rows
        assert n_rows <= self.max_rows or len(self.running) == 1
        batch = [t for t in self.running if t.claim.priority is Priority.BATCH]
        assert sum(t.n_rows for t in batch) <= self.max_rows - self.max_rows // RESERVE or len(batch) == 1


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), CLAIMS, st.integers(1, 10)),
        st.tuples(st.just("end"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("wait"), st.floats(0, 2 * AGEING), st.just(0)),
    ),
    max_size=60,
)


@given(EVENTS)
@settings(deadline=None)
def test_whatever_happens_ceilings_hold_and_all_come_to_run_in_their_order(events: list[tuple]) -> None:
    world = World()
    world.play(events)
    while world.running:
        world.end(0)
        world.admit()
    assert len(world.admitted) == len(world.tickets)
    for claim in {t.claim for t in world.tickets}:
        assert [t for t in world.admitted if t.claim == claim] == [t for t in world.tickets if t.claim == claim]


@given(EVENTS)
@settings(deadline=None)
def test_without_claims_the_order_is_that_of_submission(events: list[tuple]) -> None:
    world = World()
    world.play(events, PLAIN)
    assert world.admitted == world.tickets[: len(world.admitted)]


def test_live_comes_before_short_before_batch() -> None:
    world = World(max_rows=4)
    world.submit(n_rows=4)
    world.admit()
    batch, short, live = (world.submit(Claim(p), 4) for p in (Priority.BATCH, Priority.SHORT, Priority.LIVE))
    order = []
    for _ in range(3):
        world.end(0)
        order += world.admit()
    assert order == [live, short, batch]


@pytest.mark.parametrize("flood", [Priority.LIVE, Priority.SHORT])
def test_a_batch_request_does_not_starve_under_a_flood(flood: Priority) -> None:
    world = World(max_rows=4)
    batch = world.submit(Claim(Priority.BATCH, "a"), 3)
    world.submit(Claim(flood, "b"), 4)
    while batch.state == "waiting":
        world.submit(Claim(flood, "b"), 4)
        world.end(0)
        world.admit()
        world.now += 1.0
        assert world.now < 4 * AGEING


def test_batch_requests_leave_rows_to_the_others() -> None:
    world = World()
    for _ in range(20):
        world.submit(Claim(Priority.BATCH))
    assert len(world.admit()) == MAX_ROWS - MAX_ROWS // RESERVE
    world.now += 100 * AGEING
    assert not world.admit()
    assert len([world.submit(), *world.admit()]) == 2


def test_keys_of_a_class_take_turns() -> None:
    world = World(max_rows=1)
    for key in "aaaaab":
        world.submit(Claim(Priority.SHORT, key))
    order = "".join(t.claim.key for t in world.admit())
    for _ in range(5):
        world.end(0)
        order += "".join(t.claim.key for t in world.admit())
    assert order == "abaaaa"


def test_a_full_group_holds_nobody_else() -> None:
    world, small = World(), Group(1)
    first, second = world.submit(group=small), world.submit(group=small)
    third = world.submit()
    assert world.admit() == [first, third]
    world.scheduler.remove(first)
    world.running.remove(first)
    assert world.admit() == [second]


def test_who_leaves_while_waiting_is_forgotten() -> None:
    world = World(max_rows=1)
    _, gone, last = (world.submit() for _ in range(3))
    world.admit()
    world.scheduler.remove(gone)
    world.end(0)
    assert world.admit() == [last]
