"""Who comes first: fair shares and ageing, whatever asks in whatever order."""

from __future__ import annotations

import contextvars
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from whisper.engine.priorities import AGEING, Claim, FairShares, Priority, Turns, claiming, current_claim

KEYS = st.sampled_from("abc")
CLAIMS = st.builds(Claim, st.sampled_from(Priority), KEYS)


@given(st.lists(st.tuples(KEYS, st.integers(1, 5)), max_size=60))
def test_keys_that_always_wait_get_the_same_but_for_one_turn(costs: list[tuple[str, int]]) -> None:
    shares = FairShares()
    given_to: Counter[str] = Counter()
    for _, cost in costs:
        key = min("abc", key=shares.given)
        shares.give(key, cost, "abc")
        given_to[key] += cost
        assert max(given_to[k] for k in "abc") - min(given_to[k] for k in "abc") <= 5


def test_who_was_away_has_saved_nothing_up() -> None:
    shares = FairShares()
    for _ in range(100):
        shares.give("a", 1, "a")
    turns = []
    for _ in range(6):
        key = min("ab", key=shares.given)
        shares.give(key, 1, "ab")
        turns.append(key)
    assert Counter(turns) == {"a": 3, "b": 3}
    assert len(shares._given) <= 2


@given(st.lists(CLAIMS, min_size=1, max_size=9), st.floats(0.1, 3.0))
def test_nobody_is_passed_over_for_ever(others: list[Claim], seconds: float) -> None:
    """Always somebody of each other claim waits, and each service takes some time."""
    now = 0.0
    turns, last = Turns(lambda: now), Claim(Priority.BATCH, "d")
    waiting = list(dict.fromkeys(others))
    since = 0.0
    bound = (3 * AGEING) + (len(waiting) + 1) * (seconds + AGEING)
    while True:
        ranks = {claim: turns.rank(claim, now) for claim in waiting} | {last: turns.rank(last, since)}
        chosen = min(ranks, key=ranks.__getitem__)
        turns.serve({chosen: 1.0}, [*waiting, last])
        if chosen == last:
            break
        now += seconds
        assert now <= bound


@given(st.sampled_from(Priority), st.sampled_from(Priority), KEYS, KEYS)
def test_a_class_comes_before_a_lower_one_that_did_not_wait_long(
    high: Priority, low: Priority, key: str, other: str
) -> None:
    now = 0.0
    turns = Turns(lambda: now)
    turns.serve({Claim(high, key): 100.0}, [Claim(low, other)])
    now = AGEING - 0.1
    if high < low:
        assert turns.rank(Claim(high, key), now) < turns.rank(Claim(low, other), 0.0)


def test_a_long_queue_is_as_urgent_as_what_it_was_submitted_as() -> None:
    now = 0.0
    turns, batch = Turns(lambda: now), Claim(Priority.BATCH)
    while now < 100:  # served again and again, though the last of the queue waits since the beginning
        now += AGEING / 2
        turns.serve({batch: 1.0}, [batch])
    now += AGEING - 1
    assert turns.rank(batch, 0.0)[0] == Priority.BATCH
    now += 1
    assert turns.rank(batch, 0.0)[0] == Priority.SHORT


def test_a_claim_belongs_to_its_context() -> None:
    assert current_claim() == Claim(Priority.SHORT, "")
    with claiming(Priority.LIVE, "k"):
        assert current_claim() == Claim(Priority.LIVE, "k")
        inside = contextvars.copy_context()
    assert current_claim() == Claim()
    assert inside.run(current_claim) == Claim(Priority.LIVE, "k")
