"""Generate RELIABILITY.md from the results of the fault injections.

    python benchmarks/reliability.py          # `make faults` runs this at its end

Reads every `results/*.json` with a `faults` list. Counts, figures and machines come from there, the
description of each fault from `FAULTS`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from record import RESULTS

PAGE = RESULTS.parents[1] / "RELIABILITY.md"
WIDTH = 98
HEAD = """# Reliability

Faults injected into real runs, and the results. `make faults` repeats all of them but V6
(`benchmarks/video_matrix.py`) and regenerates this page; `make test-all` runs the same code with
smaller counts.
"""
LATE_FROM = "2026-11-27"
"""Date from which on half of the runs of R1, R2, R6, R7 and N1 read a step's statistics late."""
LATE = (
    "; half of the runs of R1, R2, R6, R7 and N1 read the statistics of a step one step later, as "
    "on a GPU"
)
BEFORE = (
    "; measured before half of the runs read the statistics of a step one step later, as on a GPU, "
    "and before N1 ran with SGD; `make test-all` runs both"
)
GROUPS = {
    "V": "Videos",
    "W": "Loader workers",
    "R": "Training",
    "N": "Training",
    "F": "Features and storage",
}


@dataclass(frozen=True)
class Fault:
    """Description of one kind of fault; `{trials}` and `{half}` in `injected` are its counts."""

    title: str
    injected: str
    required: str


FAULTS = {
    "V1": Fault(
        "All kinds of video files",
        "over 70 generated files, valid, unusual and unreadable; pixels encode the frame number",
        "valid and unusual files: every frame exact, in order and at random, from memory and by "
        "seeking; unreadable files: a reason from a fixed list within 5 s and 500 MB",
    ),
    "V2": Fault(
        "Other decoders",
        "the same files with decord and, where installed, torchcodec",
        "the same frames in the same orientation, or a documented refusal",
    ),
    "V3": Fault(
        "Fuzzed files",
        "seeded byte mutations of the valid files",
        "no crash, none above 5 s or 500 MB",
    ),
    "V4": Fault(
        "Leaks",
        "repeated opening and reading, a third of it of unreadable files",
        "at most 1 kB each; constant numbers of file descriptors and threads",
    ),
    "V5": Fault(
        "Hung decoder",
        "a decoder that holds the interpreter's lock and ignores SIGTERM",
        "the worker is killed within deadline + 2 s, the file is quarantined, training continues, "
        "and a restart reads the same batches",
    ),
    "V6": Fault(
        "FFmpeg's containers and codecs",
        "37 codecs in 13 containers, with and without B-frames, packing, variable rates, edit "
        "lists, orientations, fragments and wrong flags, each with PyAV, decord and torchcodec",
        "exact frames, order, count and orientation by FFmpeg 5.1's own sequential decode, or "
        "refused with a reason; of two files, FFmpeg 8.1, which PyAV contains, shows other frames "
        "than 5.1",
    ),
    "W1": Fault(
        "Killed worker",
        "SIGKILL of one of two workers, four times a run",
        "losses bit-identical to an uninterrupted run",
    ),
    "W2": Fault(
        "Number of workers",
        "0, 1, 2 and 4 workers, by fork and by spawn",
        "the same hash of every batch",
    ),
    "W3": Fault(
        "Stopped processes",
        "SIGSTOP and SIGCONT of the whole process group, for longer than the deadline",
        "no file quarantined, the same batches",
    ),
    "R1": Fault(
        "kill -9",
        "{trials} kills of classification and masked pre-training: at random times, at random file "
        "operations of a save, and moments after a save started",
        "final weights and every loss equal those of the uninterrupted run, bit for bit",
    ),
    "R2": Fault(
        "SIGTERM, SIGINT",
        "{trials} signals to the whole process group, with 0 and with 2 loader workers",
        "a checkpoint within one step, exit code 143 or 130, and a resumed run equal to the "
        "uninterrupted one, bit for bit",
    ),
    "R3": Fault(
        "Full disk",
        "{trials} times, while writing the weights or the optimizer's state, by a limit on file "
        "sizes (RLIMIT_FSIZE)",
        "a clear error and exit code 2, no temporary files left, the previous checkpoint loads, "
        "and a resumed run equals the uninterrupted one, bit for bit",
    ),
    "R4": Fault(
        "Damaged or foreign checkpoint",
        "truncated, altered, zeroed, empty, missing and exchanged files; malicious pickles; "
        "another architecture, class count, optimizer or settings with valid hashes",
        "none of them is loaded: the newest valid checkpoint is named and used (the resumed run "
        "equals the uninterrupted one, bit for bit), a foreign one is refused with exit code 2, "
        "and no pickled code runs",
    ),
    "R5": Fault(
        "Two runs in one folder; folder not writable",
        "{half} times each",
        "refused with exit code 2 before the first step; the first run finishes unaffected",
    ),
    "R6": Fault(
        "World size 1 → 2 → 1",
        "{trials} runs (gloo) with mixup, cutmix, drop path and masks, without dropout; 5 steps "
        "each, with checkpoints passed on",
        "every step uses the same videos, mixed clips, masks and drop-path draws, bit for bit; "
        "losses within 1e-5",
    ),
    "R7": Fault(
        "World size 1 → 2 sharded (FSDP2) → 1",
        "{trials} runs as in R6, half of them in bf16, with gradient accumulation, activation "
        "checkpointing, clipping and layer decay; two processes start from one's checkpoint and "
        "write sharded checkpoints, from which one process resumes",
        "as R6 (bf16: losses within 1e-2); the two processes, resumed from a sharded checkpoint, "
        "equal the uninterrupted run, bit for bit",
    ),
    "N1": Fault(
        "NaN or infinity",
        "{trials} runs with AdamW or SGD: in the loss, the gradient or the input; on rank 0 or 1 "
        "of two (gloo, DDP and FSDP2), and in a single process",
        "every rank stops at that step with exit code 4 and unchanged weights; the manifest rows "
        "of the step are written to a file; earlier checkpoints load",
    ),
    "F1": Fault(
        "kill -9 of feature extraction",
        "{trials} kills at random times and at random file operations, with 0 and 1 loader "
        "workers; after each, the same command again",
        "each clip once, every shard and index byte-identical to the uninterrupted run's, no "
        "temporary files left",
    ),
    "F2": Fault(
        "Passing faults of the storage",
        "the videos' folder away or its mount point empty, no file descriptors or memory left, a "
        "bad sector, a disk that blocks every read for longer than the deadline; while batches are "
        "loaded and videos are checked",
        "waited for or stopped with an error; no healthy video recorded as unreadable",
    ),
}


def page(results: list[dict[str, Any]]) -> str:
    """Return the text of the page."""
    rows = sorted(
        (row for result in results for row in result["faults"]),
        key=lambda row: list(FAULTS).index(row["id"]),
    )
    text, group = HEAD, ""
    for row in rows:
        fault, trials = FAULTS[row["id"]], row["trials"]
        if (heading := GROUPS[row["id"][0]]) != group:
            text, group = f"{text}\n## {heading}\n", heading
        figures = "".join(f"; {name}: {_number(value)}" for name, value in row["figures"].items())
        text += f"\n**{row['id']}: {fault.title}**\n\n" + "".join(
            fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False) + "\n"
            for line in (
                f"- Injected: {fault.injected.format(trials=trials, half=trials // 2)}.",
                f"- Required: {fault.required}.",
                f"- Passed: **{row['held']:,} of {trials:,}**{figures}.",
            )
        )
    return f"{text}\n## Measurements\n\n{''.join(map(_source, results))}"


def _source(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    line = (
        f"- `{result['command']}`, {result['date']}: {machine['cpu']}, {machine['cores']} cores, "
        f"Python {machine['python']}, torch {versions['torch']}, av {versions['av']}"
    )
    if result["command"].endswith(" benchmarks/faults.py"):
        line += LATE if result["date"] >= LATE_FROM else BEFORE
    return fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False) + "\n"


def _number(value: float) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def results() -> list[dict[str, Any]]:
    """Return the contents of every results file with faults, sorted by file name."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return [result for result in found if "faults" in result]


if __name__ == "__main__":
    PAGE.write_text(page(results()))
    print(PAGE)
