"""Accuracy of the demo's model when each clip is replaced by one of its frames, repeated.

    python benchmarks/motion_stills.py            # needs data/motion (make demo)

Writes the replaced clips to `data/motion_stills` and runs the demo's configuration on them.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
from record import record
from tqdm import tqdm

from hiera_video.data.manifest.read import read_manifest
from hiera_video.video import open_video
from hiera_video.video.encode import write_video

ROOT = Path(__file__).parents[1]
CONFIG = "configs/motion_hiera_micro.yaml"


def main() -> None:
    """Write the stills, train, test, and record the accuracy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--motion", type=Path, default=ROOT / "data" / "motion", help="the motion set"
    )
    parser.add_argument(
        "--stills", type=Path, default=ROOT / "data" / "motion_stills", help="output folder"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="overrides for train_net.py"
    )
    arguments = parser.parse_args()
    for split in ("train", "val"):
        make_stills(arguments.motion, arguments.stills, split)
    common = [
        *(
            "--cfg",
            CONFIG,
            f"data.train={arguments.stills / 'train.csv'}",
            f"data.val={arguments.stills / 'val.csv'}",
        ),
        *("out_dir=runs/motion_stills", *arguments.overrides),
    ]
    for tool in ("train_net.py", "test_net.py"):
        subprocess.run([sys.executable, f"tools/{tool}", *common], cwd=ROOT, check=True)
    stills = json.loads((ROOT / "runs/motion_stills/results.json").read_text())
    classes = read_manifest(str(arguments.stills / "val.csv")).num_classes
    result = {
        "what": "one random frame of each clip, repeated, in training and test",
        "command": " ".join(["python", *sys.argv]),
        "top1": stills["top1"],
        "chance": 100 / classes,
        "evaluated": stills["evaluated"],
    }
    print(record("motion_stills", result))


def make_stills(motion: Path, stills: Path, split: str) -> None:
    """Write each clip of a split as one of its frames, repeated over the clip's length."""
    lines = []
    for record_ in tqdm(
        read_manifest(str(motion / f"{split}.csv")).records, desc=f"{split} stills"
    ):
        name = f"videos/{Path(record_.path).name}"
        with open_video(record_.path) as video:
            count = video.info.num_frames
            (frame,) = video.frames([random.Random(f"still/{name}").randrange(count)])
            (stills / "videos").mkdir(parents=True, exist_ok=True)
            write_video(stills / name, np.broadcast_to(frame, (count, *frame.shape)), fps=12)
        lines.append(f"{name} {record_.label}\n")
    (stills / f"{split}.csv").write_text("".join(lines))


if __name__ == "__main__":
    main()
