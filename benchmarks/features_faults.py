"""F1: feature extraction that is killed again and again: each clip once, shards byte-identical to the undisturbed run's.

    python benchmarks/features_faults.py            # part of make faults; 1,000 clips, 20 kills, about two minutes
    python benchmarks/features_faults.py --clips 60 --kills 2 --out faults.json

Writes `results/features_faults.json` and RELIABILITY.md (with `--out` neither). Exit code 1 where anything did not hold.
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

import hiera_video.data.transforms.train_eval
import hiera_video.features.engines  # noqa: F401  (with the line above, all that a fork needs, imported once)
from hiera_video.features.store import FeatureStore
from hiera_video.models.factory import create_model
from hiera_video.models.weights.save import save_pretrained
from hiera_video.video.encode import write_video

ROOT = Path(__file__).parents[1]
WINDOWS = 5
"""Of each video."""
EVENTS = frozenset({"open", "os.rename", "os.link", "os.remove", "os.mkdir"})


class Lab:
    """Videos of five windows each, one in fifty broken, a model, and extraction from one to the other in a fork."""

    def __init__(self, folder: Path, clips: int) -> None:
        self.folder = folder
        videos = folder / "videos"
        videos.mkdir(parents=True)
        good = -(-clips // WINDOWS)
        for number in range(good + max(good // 50, 1)):
            path = videos / f"{number:04d}.mp4"
            if number % 51 == 7:
                path.write_bytes(b"no video at all")
                continue
            still = np.random.default_rng(number).integers(0, 255, (36, 48, 3), dtype=np.uint8)
            write_video(
                path,
                (np.roll(still, 3 * t, axis=(0, 1)[t % 2]) for t in range(66 + number % 15)),
                fps=12,
            )
        torch.manual_seed(0)
        self.arguments = [
            *(
                "--cfg",
                "configs/motion_hiera_micro.yaml",
                f"input={videos}",
                "features.max_broken=0.2",
            ),
            f"model.pretrained={save_pretrained(create_model('hiera_micro_16x32'), folder / 'model')}",
            *("features.batch_size=8", f"features.shard_videos={max(good // 33, 2)}"),
        ]
        self.reference = folder / "reference"
        started = time.monotonic()
        assert self.wait(self.start(self.reference, workers=0)) == 0, self.said(self.reference)
        self.seconds = time.monotonic() - started
        """How long the undisturbed run took."""

    def start(self, output: Path, *, workers: int, operation: int | None = None) -> int:
        """The tool in a fork, which dies at its `operation`-th operation on a file of `output`; its process number."""
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
            sys.argv = [
                "tools/extract_features.py",
                *self.arguments,
                f"output={output}",
                f"data.workers={workers}",
            ]
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        finally:
            os._exit(code)

    def wait(self, pid: int) -> int:
        """The exit code, negative for a signal; a run of over two minutes is killed and counts as hung (-9)."""
        deadline = time.monotonic() + 120
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)

    def said(self, output: Path) -> str:
        """The end of what a run printed."""
        return output.with_suffix(".log").read_text(errors="replace")[-500:]


def _die_at(operation: int, folder: str) -> None:
    seen = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in EVENTS and str(arguments[0]).startswith(folder):
            seen += 1
            if seen == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def kill_again_and_again(lab: Lab, kills: int) -> dict[str, Any]:
    """Half of the kills at a random time, half at a random operation on a file of the output; after each, the same
    command goes on. Where an extraction ends before its next kill, another one begins."""
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
        code = _interrupted(lab, output, draw, by_time=trials % 2 == 1)
        trials += 1
        if code == -signal.SIGKILL:
            killed += 1
            figures["inside a write"] += any(output.rglob("*.partial"))
            failures += [
                f"kill {killed}: {problem}"
                for problem in _differences(lab.reference, output, whole=False)
            ]
        elif code == 0:
            figures["extractions"] += 1
            failures += [
                f"before kill {killed}: {problem}"
                for problem in _differences(lab.reference, output)
            ]
            output = lab.folder / f"killed_{trials}"
        else:
            failures.append(f"the run before kill {killed} ended with {code}: {lab.said(output)}")
            break
    code = lab.wait(lab.start(output, workers=1))
    figures["extractions"] += 1
    failures += [f"the last run ended with {code}: {lab.said(output)}"] if code else []
    failures += [f"in the end: {problem}" for problem in _differences(lab.reference, output)]
    return {
        "id": "F1",
        "trials": kills,
        "held": max(kills - len(failures), 0),
        "figures": figures,
        "failures": failures,
        "seconds": round(time.monotonic() - started),
    }


def _interrupted(lab: Lab, output: Path, draw: random.Random, *, by_time: bool) -> int:
    workers = draw.randrange(2)
    if not by_time:
        return lab.wait(lab.start(output, workers=workers, operation=draw.randrange(1, 31)))
    pid = lab.start(output, workers=workers)
    time.sleep(draw.uniform(0.01, 0.15) * lab.seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)  # the process alone: its loader worker has to notice
    return lab.wait(pid)


def _differences(reference: Path, output: Path, *, whole: bool = True) -> list[str]:
    """Where the finished shards of `output` are not the reference's; with `whole`, all of them must be there."""
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
    if not whole:
        return problems
    problems += [f"{path} is missing" for path in expected if path not in found]
    problems += [f"{path} is litter" for path in found if path not in expected]
    clips = FeatureStore(output).clips().select(["row", "clip"])
    counts = clips.group_by(["row", "clip"]).aggregate([([], "count_all")]).column("count_all")
    if (
        compute.max(counts).as_py() != 1
        or clips.num_rows != FeatureStore(reference).clips().num_rows
    ):
        problems.append("a clip is missing or there twice")
    return problems


def main() -> int:
    """Kill, compare, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path, help="where the figures go instead")
    arguments = parser.parse_args()
    import reliability
    from record import record

    with tempfile.TemporaryDirectory(prefix="features_faults_") as folder:
        row = kill_again_and_again(Lab(Path(folder), arguments.clips), arguments.kills)
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
