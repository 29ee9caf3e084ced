#!/usr/bin/env python3
"""A simulation of a job of millions of recordings on a cluster whose machines fail: are the promises kept?

    python benchmarks/cluster.py                       # 10 million recordings, 100 GPUs
    python benchmarks/cluster.py --mtbf 24 --poison 1e-4

The policy is the program's own (`whisper.jobs.failures.after`); the cluster is made of random numbers: lengths of
recordings, speeds of GPUs, machines that die and come back, recordings that kill their worker. A worker gets blocks of
recordings, as many as it holds at once; what it held when it died is given out again, and what may have killed it runs
once more alone. One runner marks results, and takes a fixed time for each. Checked at the end: every recording is in
one state, poison alone has failed, nothing was done twice but what a failure interrupted. The last line is JSON.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from whisper.jobs.failures import after

FINISH, DIE, RETURN = 0, 1, 2


@dataclass
class Worker:
    """A GPU."""

    machine: int
    speed: float  # seconds of sound in a second
    alive: bool = True
    block: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    turn: int = 0  # counts up with each block, so that the end of a block that died is not taken for another's
    alone: bool = False


class Simulation:
    """A job on a cluster.

    Parameters
    ----------
    args
        See `main`.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.random = args, np.random.default_rng(args.seed)
        n = args.recordings
        self.seconds = np.minimum(self.random.lognormal(np.log(args.median_seconds), 1.2, n), 6 * 3600)
        self.poison = self.random.random(n) < args.poison
        self.done = np.zeros(n, np.int8)  # how often; must end as 1, or 0 for poison
        self.failed = np.zeros(n, bool)
        self.begun = np.zeros(n, np.int16)
        self.lost = np.zeros(n, np.int16)  # times that it was interrupted
        n_machines = -(-args.gpus // args.per_machine)
        speeds = args.speed * self.random.normal(1, 0.1, args.gpus).clip(0.5, 1.5)
        self.workers = [Worker(i // args.per_machine, s) for i, s in enumerate(speeds)]
        self.events: list[tuple[float, int, int, int]] = []  # time, kind, worker or machine, turn
        self.now, self.next, self.again, self.alone = 0.0, 0, [], []  # of what waits
        self.marked_until, self.mark_wait = 0.0, 0.0
        self.n_deaths = self.n_crashes = 0
        self.busy = 0.0
        for machine in range(n_machines):
            self._plan_death(machine)

    def run(self) -> None:
        """Run to the end."""
        for number in range(len(self.workers)):
            self._give(number)
        while self.events and (self.next < len(self.seconds) or self.again or self.alone or self._working()):
            self.now, kind, number, turn = heapq.heappop(self.events)
            if kind == FINISH and self.workers[number].turn == turn and self.workers[number].alive:
                self._finish(number)
            elif kind == DIE:
                self._die(number)
            elif kind == RETURN:
                self._plan_death(number)
                for i, worker in enumerate(self.workers):
                    if worker.machine == number:
                        worker.alive = True
                        self._give(i)

    def _working(self) -> bool:
        return any(worker.alive and len(worker.block) for worker in self.workers)

    def _plan_death(self, machine: int) -> None:
        heapq.heappush(self.events, (self.now + self.random.exponential(3600 * self.args.mtbf), DIE, machine, 0))

    def _give(self, number: int) -> None:
        """Give a worker a block: what was interrupted first, then the list, at last what runs alone."""
        worker, n = self.workers[number], self.args.side_by_side
        worker.turn, worker.alone = worker.turn + 1, False
        if self.again:
            worker.block = np.array([self.again.pop() for _ in range(min(n, len(self.again)))], np.int64)
        elif self.next < len(self.seconds):
            worker.block = np.arange(self.next, min(self.next + n, len(self.seconds)))
            self.next += len(worker.block)
        elif self.alone:
            worker.block, worker.alone = np.array([self.alone.pop()], np.int64), True
        else:
            worker.block = np.zeros(0, np.int64)
            return
        self.begun[worker.block] += 1
        taken = self.seconds[worker.block].sum() / worker.speed
        if self.poison[worker.block].any():  # it dies somewhere in the block
            taken *= self.random.random()
        heapq.heappush(self.events, (self.now + taken, FINISH, number, worker.turn))
        self.busy += taken

    def _finish(self, number: int) -> None:
        worker = self.workers[number]
        if self.poison[worker.block].any():
            self._crash(worker)
        else:
            self.done[worker.block] += 1
            cost = self.args.mark_ms / 1000 * len(worker.block)
            self.marked_until = max(self.marked_until, self.now) + cost
            self.mark_wait = max(self.mark_wait, self.marked_until - self.now)
        self._give(number)

    def _crash(self, worker: Worker) -> None:
        """The process dies: all that it had may be the cause."""
        self.n_crashes += 1
        self.lost[worker.block] += 1
        for one in worker.block.tolist():
            then = after("crash", int(self.begun[one]), int(worker.alone), 2)
            if then.state == "failed":
                self.failed[one] = True
            else:
                self.alone.append(one)

    def _die(self, machine: int) -> None:
        """The machine dies: nothing that ran there is to blame."""
        self.n_deaths += 1
        for worker in self.workers:
            if worker.machine == machine and worker.alive:
                worker.alive = False
                worker.turn += 1
                self.lost[worker.block] += 1
                (self.alone if worker.alone else self.again).extend(worker.block.tolist())
                worker.block = np.zeros(0, np.int64)
        heapq.heappush(self.events, (self.now + 60 * self.args.repair, RETURN, machine, 0))

    def check(self) -> None:
        """Check what the scheduler promises."""
        assert (self.failed == self.poison).all(), "what failed is not what is poison"
        assert (self.done == ~self.poison).all(), "a recording was lost, or marked twice"
        assert (self.begun == self.done + self.lost).all(), "something was begun again without need"


def main() -> None:
    """Simulate, check, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, text in (
        ("recordings", 10_000_000, "in the job"), ("gpus", 100, "in the cluster"), ("per_machine", 8, "GPUs"),
        ("side_by_side", 64, "recordings of a worker"), ("seed", 0, "of the random numbers"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (%(default)s)")
    for name, value, text in (
        ("median_seconds", 180.0, "of a recording"), ("speed", 300.0, "seconds of sound that a GPU does in a second"),
        ("mtbf", 200.0, "hours between two deaths of a machine"), ("repair", 20.0, "minutes until it is back"),
        ("poison", 1e-5, "share of recordings that kill their worker"), ("mark_ms", 5.0, "of the runner for a result"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=float, default=value, help=f"{text} (%(default)s)")
    args = parser.parse_args()
    begun = time.time()
    simulation = Simulation(args)
    simulation.run()
    simulation.check()
    total, best = simulation.seconds.sum(), simulation.seconds.sum() / sum(w.speed for w in simulation.workers)
    again = float((simulation.seconds * np.maximum(simulation.begun - 1, 0)).sum() / total)
    told = {
        "recordings": args.recordings, "hours of sound": round(total / 3600), "hours": round(simulation.now / 3600, 2),
        "hours without failures": round(best / 3600, 2), "machines that died": simulation.n_deaths,
        "workers that crashed": simulation.n_crashes, "failed": int(simulation.failed.sum()),
        "begun again": int((simulation.begun > 1).sum()), "sound done again, percent": round(100 * again, 3),
        "longest wait for a mark, s": round(simulation.mark_wait, 2), "simulated in s": round(time.time() - begun, 1),
    }  # fmt: skip
    for name, value in told.items():
        print(f"{name:28} {value:,}")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
