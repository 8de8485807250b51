"""tools/check_data.py on 1,000 generated videos of which 50 are broken: does it find exactly those?

    python benchmarks/check_thousand.py          # a few minutes on two cores

Writes `results/check_thousand.json`. Exit code 1 where it missed or invented one.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from record import record

from hiera_video.video.encode import write_video

ROOT = Path(__file__).parents[1]
VIDEOS, BROKEN = 1000, 50


def main() -> int:
    """Make the set, run the tool, compare."""
    generator = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3)).astype(np.uint8)
        for number in range(VIDEOS):
            write_video(
                folder / f"{number:04d}.mp4",
                np.roll(noise, number, axis=(0, 2))[: 40 + number % 20],
                fps=30,
                crf=30,
            )
        wrong = {
            f"{number:04d}.mp4": damage(folder / f"{number:04d}.mp4", place % 5)
            for place, number in enumerate(sorted(generator.sample(range(VIDEOS), BROKEN)))
        }
        listing = folder / "list.csv"
        listing.write_text("".join(f"{number:04d}.mp4 {number % 10}\n" for number in range(VIDEOS)))
        began = time.monotonic()
        command = [
            sys.executable,
            "tools/check_data.py",
            "--train",
            str(listing),
            "--out",
            str(folder / "out"),
        ]
        done = subprocess.run(command, cwd=ROOT, check=False, stderr=subprocess.DEVNULL)
        seconds = round(time.monotonic() - began)
        split = json.loads((folder / "out/check.json").read_text())["splits"]["train"]
    found = {Path(item["path"]).name for item in split["broken"]}
    result = {
        "command": "python benchmarks/check_thousand.py",
        "videos": VIDEOS,
        "broken": BROKEN,
        "how": dict(Counter(wrong.values())),
        "found": len(found & set(wrong)),
        "missed": sorted(set(wrong) - found),
        "invented": sorted(found - set(wrong)),
        "reasons": split["reasons"],
        "exit_code": done.returncode,
        "seconds": seconds,
    }
    print(record("check_thousand", result), result)
    return int(found != set(wrong))


def damage(path: Path, kind: int) -> str:
    """Break a file in one of five ways; what was done."""
    data = bytearray(path.read_bytes())
    if kind == 0:
        path.unlink()
        return "missing"
    if kind == 1:
        path.write_bytes(b"")
        return "empty"
    if kind == 2:
        path.write_bytes(data[: len(data) // 2])
        return "cut in half"
    if kind == 3:
        path.write_bytes(b"<html>404</html>" * 50)
        return "a web page"
    start = data.index(b"mdat") + 4
    third = (data.index(b"moov") - start) // 3
    data[start + third : start + 2 * third] = bytes(third)
    path.write_bytes(data)
    return "a hole in the middle"


if __name__ == "__main__":
    sys.exit(main())
