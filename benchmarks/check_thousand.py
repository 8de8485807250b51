"""Check 1,000 generated videos, 50 of them damaged: does tools/check_data.py find exactly those?

    python benchmarks/check_thousand.py          # about a minute on two cores

Writes `results/check_thousand.json`. Exit code 1 if a damaged video was missed or an intact one
reported.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from record import record

from hiera_video.video.encode import write_video

ROOT = Path(__file__).parents[1]
VIDEOS, DAMAGED = 1000, 50


def main() -> int:
    """Write the videos, run the check and compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        damage = make_videos(folder)
        started = time.monotonic()
        code = run_check(folder)
        seconds = round(time.monotonic() - started)
        split = json.loads((folder / "out/check.json").read_text())["splits"]["train"]
    found = {Path(item["path"]).name for item in split["broken"]}
    result = {
        "command": "python benchmarks/check_thousand.py",
        "videos": VIDEOS,
        "broken": DAMAGED,
        "how": dict(Counter(damage.values())),
        "found": len(found & set(damage)),
        "missed": sorted(set(damage) - found),
        "invented": sorted(found - set(damage)),
        "reasons": split["reasons"],
        "exit_code": code,
        "seconds": seconds,
    }
    print(record("check_thousand", result), result)
    return int(found != set(damage))


def make_videos(folder: Path) -> dict[str, str]:
    """Write the videos and their list, damage some, and return the kind of damage by file name."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3)).astype(np.uint8)
    names = [f"{number:04d}.mp4" for number in range(VIDEOS)]
    for number, name in enumerate(names):
        frames = np.roll(noise, number, axis=(0, 2))[: 40 + number % 20]
        write_video(folder / name, frames, fps=30, crf=30)
    lines = [f"{name} {number % 10}\n" for number, name in enumerate(names)]
    (folder / "list.csv").write_text("".join(lines))
    kinds = list(DAMAGE)
    damage = {}
    for place, number in enumerate(sorted(random.Random(0).sample(range(VIDEOS), DAMAGED))):
        kind = kinds[place % len(kinds)]
        DAMAGE[kind](folder / names[number])
        damage[names[number]] = kind
    return damage


def run_check(folder: Path) -> int:
    """Run the tool on the list and return its exit code."""
    command = [
        *(sys.executable, "tools/check_data.py"),
        *("--train", str(folder / "list.csv"), "--out", str(folder / "out")),
    ]
    done = subprocess.run(command, cwd=ROOT, check=False, stderr=subprocess.DEVNULL)
    return done.returncode


def halve(path: Path) -> None:
    """Keep the first half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def zero_middle(path: Path) -> None:
    """Zero the middle third of the media data."""
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    third = (content.index(b"moov") - start) // 3
    content[start + third : start + 2 * third] = bytes(third)
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut in half": halve,
    "a web page": lambda path: path.write_bytes(b"<html>404</html>" * 50),
    "a hole in the middle": zero_middle,
}


if __name__ == "__main__":
    sys.exit(main())
