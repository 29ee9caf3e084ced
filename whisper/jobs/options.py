"""The options of a job, each declared once: what is written, in which order, what is tried again, and limits"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import OptionError
from ..options.types import FINITE, FLAG, TEXT, check_values, number, one_of, option, some_of, whole
from ..output.writers import OUTPUT_FORMATS, formats_of

# headings of the help and of docs/options.md, in their order
GROUPS = (JOB := "the job", FAILURES := "failures", LIMITS := "limits of a run", TOLD := "what is told")

ORDERS = {"name": "id", "shortest": "coalesce(size, 0)", "longest": "-coalesce(size, 0)"}  # as SQL
_SHARD = re.compile(r"(\d{1,6})/(\d{1,6})")
_FAILURES = re.compile(r"(\d{1,9})|(\d{1,2}(?:\.\d+)?|100)%")


@dataclass(frozen=True)
class JobOptions:
    """How the recordings of a job are run."""

    output_format: tuple[str, ...] = option(
        JOB, ("all",), some_of(*OUTPUT_FORMATS), "files to write of each recording, such as srt,json; all is one of "
        "openai-whisper's five; further ones are written later from what is kept, without transcribing again",
        cli={"flags": ("--output_format", "-f"), "default": "all"},
    )  # fmt: skip
    order: str = option(
        JOB, "name", one_of(*ORDERS), "which recordings come first within a priority; shortest and longest go by the "
        "size of the file",
    )  # fmt: skip
    check: str = option(
        JOB, "quick", one_of("quick", "content"), "how a changed recording is noticed: by size and time of the file, "
        "or by reading its content again",
    )  # fmt: skip
    workers: int = option(
        JOB, 0, whole(0, 1024), "processes that transcribe, each with a model; 0 is one for each device"
    )
    side_by_side: int = option(
        JOB, 0, whole(0, 4096), "recordings that share the batches of a worker; 0 is 16 on a CPU, 64 on a GPU"
    )
    ray: str | None = option(
        JOB, None, TEXT, "run the workers on a Ray cluster: local, auto, or its address; one for each GPU, or for each "
        "machine without GPUs",
    )  # fmt: skip
    shard: str | None = option(
        JOB, None, TEXT, "I/N, such as 3/8: the third of eight parts of the list, with a job file of its own, so that "
        "machines without a common file system lock can share the work",
    )  # fmt: skip

    retries: int = option(FAILURES, 2, whole(0, 100), "further tries after a failure that may pass, such as one of a "
                          "network drive")  # fmt: skip
    retry: bool = option(FAILURES, False, FLAG, "with True, recordings that failed in earlier runs are tried again")
    max_failures: str | None = option(
        FAILURES, None, TEXT, "end the run when so many recordings of it failed, as a number or a share such as 5%%"
    )
    stall: float = option(
        FAILURES, 1800.0, number(1, FINITE), "seconds without any progress after which a worker is ended and begun "
        "anew",
    )  # fmt: skip

    time_limit: float | None = option(LIMITS, None, number(0, FINITE, above=True), "hours after which the run ends; "
                                      "the same command goes on")  # fmt: skip
    memory_limit: float | None = option(
        LIMITS, None, number(0.1, FINITE), "gigabytes of a worker: its caches and the sound that waits get half, and "
        "a worker that has more when a recording ends is begun anew",
    )  # fmt: skip
    min_free_space: float = option(
        LIMITS, 0.1, number(0, FINITE), "gigabytes that stay free on the disk of the outputs; with less the run ends"
    )

    metrics: str | None = option(
        TOLD, None, TEXT, "file of figures for Prometheus' textfile collector, written every 15 s"
    )
    summary: bool = option(TOLD, True, FLAG, "write summary.html at the end")

    def __post_init__(self) -> None:
        check_values(self)
        self.part()
        self.too_many(0, 0)

    def formats(self) -> tuple[str, ...]:
        """Return the names of the formats, those of `WRITERS` first."""
        return formats_of(self.output_format)

    def part(self) -> tuple[int, int] | None:
        """Return the numbers I and N of the shard, from 1 on; None where all is one."""
        if self.shard is None:
            return None
        found = _SHARD.fullmatch(self.shard)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise OptionError(f"shard must be I/N with I from 1 to N, such as 1/4, not {self.shard!r}")
        return int(found[1]), int(found[2])

    def too_many(self, n_failed: int, n_ended: int) -> bool:
        """Whether so many recordings failed, of those that ended, that the run ends; a share counts from 20 on."""
        if self.max_failures is None:
            return False
        found = _FAILURES.fullmatch(self.max_failures.replace("%%", "%"))
        if not found:
            raise OptionError(f"max_failures must be a number or a share such as 5%, not {self.max_failures!r}")
        if found[1] is not None:
            return n_failed > int(found[1])
        return n_ended >= 20 and 100 * n_failed > float(found[2]) * n_ended
