"""F1: kill feature extraction again and again; its shards must stay byte-identical.

    python benchmarks/features_faults.py     # part of `make faults`; 1,000 clips, 20 kills, 2 min
    python benchmarks/features_faults.py --clips 60 --kills 2 --out faults.json

Writes `results/features_faults.json` and RELIABILITY.md (neither with `--out`). The exit code is 1
if anything did not hold.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import contextlib
import random
import runpy
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as compute
import torch

# everything that a fork needs, imported once
import hiera_video.data.transforms.train_eval
import hiera_video.features.engines  # noqa: F401
from hiera_video.features.store import FeatureStore
from hiera_video.models.factory import create_model
from hiera_video.models.weights.save import save_pretrained
from hiera_video.video.encode import write_video

ROOT = Path(__file__).parents[1]
WINDOWS = 5
"""Windows of each video."""
EVENTS = frozenset({"open", "os.rename", "os.link", "os.remove", "os.mkdir"})
"""Audit events of operations on files."""


class Lab:
    """Videos of five windows each, one in fifty unreadable, a model, and extraction in a fork."""

    def __init__(self, folder: Path, clips: int) -> None:
        self.folder = folder
        videos = folder / "videos"
        videos.mkdir(parents=True)
        readable = -(-clips // WINDOWS)
        for number in range(readable + max(readable // 50, 1)):
            path = videos / f"{number:04d}.mp4"
            if number % 51 == 7:
                path.write_bytes(b"no video at all")
                continue
            still = np.random.default_rng(number).integers(0, 255, (36, 48, 3), dtype=np.uint8)
            count = 66 + number % 15
            frames = (np.roll(still, 3 * t, axis=(0, 1)[t % 2]) for t in range(count))
            write_video(path, frames, fps=12)
        torch.manual_seed(0)
        weights = save_pretrained(create_model("hiera_micro_16x32"), folder / "model")
        self.arguments = [
            "--cfg",
            "configs/motion_hiera_micro.yaml",
            f"input={videos}",
            f"model.pretrained={weights}",
            "features.max_broken=0.2",
            "features.batch_size=8",
            f"features.shard_videos={max(readable // 33, 2)}",
        ]
        self.reference = folder / "reference"
        started = time.monotonic()
        code = self.wait(self.start(self.reference, workers=0))
        assert code == 0, self.read_log(self.reference)
        self.seconds = time.monotonic() - started
        """Duration of the run without kills."""

    def start(self, output: Path, *, workers: int, operation: int | None = None) -> int:
        """Start the tool in a fork and return its process id.

        Args:
            output: Output folder.
            workers: `data.workers`.
            operation: Number of the operation on a file of `output` at which the process dies.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            torch.set_num_threads(1)
            handle = os.open(output.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            os.chdir(ROOT)
            if operation is not None:
                _die_at(operation, str(output) + os.sep)
            overrides = [f"output={output}", f"data.workers={workers}"]
            sys.argv = ["tools/extract_features.py", *self.arguments, *overrides]
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        finally:
            os._exit(code)

    def wait(self, pid: int) -> int:
        """Return the exit code, negative for a signal; after two minutes, kill the process."""
        deadline = time.monotonic() + 120
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)

    def read_log(self, output: Path) -> str:
        """Return the end of what a run printed."""
        return output.with_suffix(".log").read_text(errors="replace")[-500:]


def _die_at(operation: int, folder: str) -> None:
    count = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in EVENTS and str(arguments[0]).startswith(folder):
            count += 1
            if count == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def run_kills(lab: Lab, kills: int) -> dict[str, Any]:
    """Kill extractions, half of them at a random time, half at a random operation on a file.

    After each kill, the same command resumes. If an extraction ends before it is killed, another
    one begins.

    Returns:
        One row for RELIABILITY.md.
    """
    failures: list[str] = []
    figures = {
        "clips": FeatureStore(lab.reference).clips().num_rows,
        "inside a write": 0,
        "extractions": 0,
    }
    trials = killed = 0
    started = time.monotonic()
    output = lab.folder / "killed_0"
    while killed < kills:
        draw = random.Random(f"kill/{trials}")
        code = _run_until_killed(lab, output, draw, by_time=trials % 2 == 1)
        trials += 1
        if code == -signal.SIGKILL:
            killed += 1
            figures["inside a write"] += any(output.rglob("*.partial"))
            failures += [
                f"kill {killed}: {problem}"
                for problem in find_differences(lab.reference, output, complete=False)
            ]
        elif code == 0:
            figures["extractions"] += 1
            failures += [
                f"before kill {killed}: {problem}"
                for problem in find_differences(lab.reference, output)
            ]
            output = lab.folder / f"killed_{trials}"
        else:
            failures.append(
                f"the run before kill {killed} ended with {code}: {lab.read_log(output)}"
            )
            break
    code = lab.wait(lab.start(output, workers=1))
    figures["extractions"] += 1
    failures += [f"the last run ended with {code}: {lab.read_log(output)}"] if code else []
    failures += [f"in the end: {problem}" for problem in find_differences(lab.reference, output)]
    return {
        "id": "F1",
        "trials": kills,
        "held": max(kills - len(failures), 0),
        "figures": figures,
        "failures": failures,
        "seconds": round(time.monotonic() - started),
    }


def _run_until_killed(lab: Lab, output: Path, draw: random.Random, *, by_time: bool) -> int:
    workers = draw.randrange(2)
    if not by_time:
        return lab.wait(lab.start(output, workers=workers, operation=draw.randrange(1, 31)))
    pid = lab.start(output, workers=workers)
    time.sleep(draw.uniform(0.01, 0.15) * lab.seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)  # its loader worker must end by itself
    return lab.wait(pid)


def find_differences(reference: Path, output: Path, *, complete: bool = True) -> list[str]:
    """Compare the finished shards of `output` with the reference; return what differs.

    With `complete`, all shards must be there, and nothing else.
    """
    expected = {
        path.relative_to(reference): path.read_bytes()
        for path in reference.rglob("*.*")
        if path.is_file()
    }
    found = {path.relative_to(output): path for path in output.rglob("*.*") if path.is_file()}
    finished = {path.with_suffix("") for path in found if path.suffix == ".json"}
    problems = [
        f"{path} differs"
        for path in expected
        if path.with_suffix("") in finished
        and (path not in found or found[path].read_bytes() != expected[path])
    ]
    if not complete:
        return problems
    problems += [f"{path} is missing" for path in expected if path not in found]
    problems += [f"{path} is left over" for path in found if path not in expected]
    clips = FeatureStore(output).clips().select(["row", "clip"])
    counts = clips.group_by(["row", "clip"]).aggregate([([], "count_all")]).column("count_all")
    if (
        compute.max(counts).as_py() != 1
        or clips.num_rows != FeatureStore(reference).clips().num_rows
    ):
        problems.append("a clip is missing or duplicated")
    return problems


def main() -> int:
    """Run the kills and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path, help="write to this file instead")
    arguments = parser.parse_args()
    import reliability
    from record import record

    with tempfile.TemporaryDirectory(prefix="features_faults_") as folder:
        row = run_kills(Lab(Path(folder), arguments.clips), arguments.kills)
    print(
        f"F1: {row['held']} of {row['trials']} held, {row['seconds']} s, {row['figures']}",
        *row["failures"],
        sep="\n    ",
    )
    command = " ".join(["python", *sys.argv])
    print(record("features_faults", {"command": command, "faults": [row]}, arguments.out))
    if arguments.out is None:
        reliability.PAGE.write_text(reliability.page(reliability.results()))
    return int(row["held"] != row["trials"])


if __name__ == "__main__":
    sys.exit(main())
