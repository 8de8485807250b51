"""A new user's path: install the wheel into a new environment, and type the tutorial's commands.

    python benchmarks/first_steps.py dist/hiera_video-0.1.0-py3-none-any.whl

The set is 20 videos of 320x240, 30 fps, 4 s, in two classes: 16 to train, 4 to validate. Every
command is a process of its own, as typed. Writes `results/first_steps.json` with seconds, seconds
of processor time (which other work on the machine changes little), exit codes, the first and last
lines that were printed, and the installed size with and without torch.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import record

from hiera_video.video.encode import write_video

EXTRAS = "train,export"
COMMANDS = (
    "hiera-video info",
    "hiera-video check-data --train videos/train --val videos/val output=checked",
    "hiera-video train --cfg motion_hiera_micro data.train=videos/train data.val=videos/val "
    "out_dir=runs/first train.epochs=15 train.batch_size=8 clip.frame_stride=4 clip.repeats=4",
    "hiera-video test --run runs/first",
    "hiera-video predict clip.mp4 --run runs/first",
    "hiera-video export --run runs/first output=first.onnx",
)
KEPT = 6
"""Lines of a command's output that are recorded, from the start and from the end."""


def main() -> None:
    """Run the commands in a temporary folder and record them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    wheel = parser.parse_args().wheel.resolve()
    with tempfile.TemporaryDirectory() as folder:
        place, binaries = Path(folder), Path(folder) / "env" / "bin"
        make_videos(place)
        install = f"pip install {wheel.name}[{EXTRAS}]"
        typed = [run([sys.executable, "-m", "venv", "env"], "python -m venv env", place)]
        pip = [binaries / "python", "-m", "pip", "install", "--no-cache-dir", "-qqq"]
        typed.append(run([*pip, f"{wheel}[{EXTRAS}]"], install, place))
        for command in COMMANDS:
            words = shlex.split(command)
            typed.append(run([binaries / words[0], *words[1:]], command, place))
        sizes = package_sizes(place / "env")
    load = os.getloadavg()[0]
    print(record("first_steps", {"commands": typed, "megabytes": sizes, "load": load}))


def run(words: list[Any], typed: str, folder: Path) -> dict[str, Any]:
    """Run a command and return its seconds, exit code and some of its output."""
    started, cpu_before = time.perf_counter(), cpu_seconds()
    done = subprocess.run(
        list(map(str, words)), cwd=folder, text=True, stdout=-1, stderr=subprocess.STDOUT
    )
    seconds = round(time.perf_counter() - started, 1)
    cpu = round(cpu_seconds() - cpu_before, 1)
    bars = re.compile(r"\d+%\||machine ")  # progress, and the name of the operating system
    printed = done.stdout.replace(f"{folder}/", "").splitlines()
    lines = [line for line in printed if line and not bars.search(line)]
    kept = lines if len(lines) <= 2 * KEPT else [*lines[:KEPT], "…", *lines[-KEPT:]]
    print(f"{seconds:7.1f} s ({cpu} s CPU)  {typed}", *kept, sep="\n    ", flush=True)
    numbers = {"seconds": seconds, "cpu_seconds": cpu, "exit": done.returncode}
    return {"command": typed, **numbers, "output": kept}


def cpu_seconds() -> float:
    """Return the processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def package_sizes(environment: Path) -> dict[str, int]:
    """Return the megabytes of this package, and of the environment with and without torch."""
    (site,) = environment.glob("lib/python*/site-packages")
    sizes = {path.name: size(path) for path in site.iterdir()}
    torch = sum(
        value
        for name, value in sizes.items()
        if name.lower().startswith(("torch", "nvidia", "triton", "cuda", "functorch"))
    )
    total = sum(sizes.values())
    found = {"package": sizes["hiera_video"], "without_torch": total - torch, "all": total}
    return {name: round(value / 1e6, 1) for name, value in found.items()}


def size(path: Path) -> int:
    """Return the bytes of a file or of the files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def make_videos(folder: Path) -> None:
    """Write 20 videos of a square that moves to the left or to the right over noise."""
    noise = np.random.default_rng(0).integers(40, 90, (20, 240, 320, 3), np.uint8)
    for number in range(20):
        name, step = ("left", -1) if number % 2 else ("right", 1)
        split = "train" if number < 16 else "val"
        path = folder / "videos" / split / name / f"{number:02}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = np.repeat(noise[number : number + 1], 120, axis=0)
        for time_step in range(120):
            left = 130 + step * (time_step - 60) * 2
            frames[time_step, 80 + 4 * number : 140 + 4 * number, left : left + 60] = 230
        write_video(path, frames, fps=30)
    (folder / "clip.mp4").write_bytes(path.read_bytes())


if __name__ == "__main__":
    main()
