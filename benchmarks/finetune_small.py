"""Accuracy of `hiera-video finetune` beside plain fine-tuning, with a few videos of each class.

    hiera-video demo                                  # once: data/motion_hard and the pre-training
    python benchmarks/finetune_small.py               # some hours on one core; resumes

For each seed, some training videos of each class are drawn from the motion set's harder variant.
Both sides see these videos alone, and take as many steps with batches of the same size. `finetune`
chooses everything else, and holds out validation videos of 80 a class. The plain side trains
all layers as `motion_hiera_micro` does. Both are tested with one view of the 320 held-out videos.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from record import record

from hiera_video.cli.main import run_command
from hiera_video.config.load import load_config

CASES = tuple((start, clips) for clips in (5, 20, 80) for start in ("pretrained", "scratch"))
"""What the model starts from, and the training videos of each class."""
QUICK = ("data.workers=0", "test.clips=1", "test.crops=1", "test.batch_size=32")
METHODS = ("finetune", "plain")


def main() -> None:
    """Run what is missing, and record the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=Path("data/motion_hard"), help="the harder motion set")
    add("--start", default="runs/motion_hard_hiera_micro_mae", help="run of masked pre-training")
    add("--runs", type=Path, default=Path("runs/finetune_small"), help="finished ones are kept")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--cases", nargs="+", default=[f"{start}:{clips}" for start, clips in CASES])
    add("--out", type=Path, help="output file instead of results/")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    for case in arguments.cases:
        start, _, clips = case.partition(":")
        for seed in arguments.seeds:
            for method in METHODS:
                score = measure(arguments, start, int(clips), seed, method)
                print(f"{case} seed {seed} {method}: {score:.1f} %", flush=True)
        save(arguments)


def save(arguments: argparse.Namespace) -> None:
    """Record the cases whose seeds are all measured."""
    rows = []
    for start, clips in CASES:
        scores: dict[str, list[float]] = defaultdict(list)
        for seed in arguments.seeds:
            for method in METHODS:
                found = run_folder(arguments.runs, start, clips, seed, method) / "results.json"
                if found.is_file():
                    scores[method].append(json.loads(found.read_text())["top1"])
        if all(len(scores[method]) == len(arguments.seeds) for method in METHODS):
            gain = mean(scores["finetune"]) - mean(scores["plain"])
            rows.append({"start": start, "clips": clips, "top1": dict(scores), "gain": gain})
    result = {
        "what": "top-1 on 320 held-out videos of the harder motion set, one view, after the same "
        "number of steps",
        "command": "python benchmarks/finetune_small.py",
        "seeds": arguments.seeds,
        "rows": rows,
    }
    if rows:
        record("finetune_small", result, arguments.out)


def measure(arguments: Any, start: str, clips: int, seed: int, method: str) -> float:
    """Return the accuracy of one training, which is run unless its result is there."""
    folder = run_folder(arguments.runs, start, clips, seed, method)
    results = folder / "results.json"
    if not results.is_file():
        listing = draw_list(arguments.data, arguments.runs / "lists", clips, seed)
        run = finetune if method == "finetune" else plain
        code = run(arguments, folder, listing, start, seed)
        assert code == 0, (folder, code)
    return float(json.loads(results.read_text())["top1"])


def run_folder(runs: Path, start: str, clips: int, seed: int, method: str) -> Path:
    """Return the folder of one training."""
    return runs / f"{method}_{start}_{clips}_{seed}"


def draw_list(data: Path, folder: Path, clips: int, seed: int) -> Path:
    """Write a list with `clips` videos of each class, drawn by the seed."""
    by_class = defaultdict(list)
    for line in (data / "train.csv").read_text().splitlines():
        by_class[line.split()[1]].append(line)
    generator = random.Random(f"finetune_small/{seed}")
    lines = [
        line for label in sorted(by_class) for line in generator.sample(by_class[label], clips)
    ]
    target = folder / f"{clips}_{seed}"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(data / "labels.txt", target)
    (target / "list.csv").write_text("\n".join(lines) + "\n")
    return target / "list.csv"


def finetune(arguments: Any, folder: Path, listing: Path, start: str, seed: int) -> int:
    """Run `hiera-video finetune`."""
    micro = ["--model", "hiera_micro_16x32", "--checkpoint", "none"]
    weights = ["--run", str(arguments.start)] if start == "pretrained" else micro
    lists = ["--root", str(arguments.data), "--test", str(arguments.data / "val.csv")]
    keys = [f"seed={seed}", *QUICK]
    return run_command(["finetune", str(listing), *weights, *lists, f"output={folder}", *keys])


def plain(arguments: Any, folder: Path, listing: Path, start: str, seed: int) -> int:
    """Train all layers for the steps of `finetune`, and test the last checkpoint."""
    twin = folder.with_name(folder.name.replace("plain", "finetune", 1))
    config = load_config(twin / "config.yaml")
    count = sum(1 for _ in (twin / "lists/train.csv").open())
    steps = config.train.epochs * (count // config.train.batch_size)
    batch = config.train.batch_size
    videos = sum(1 for _ in listing.open())
    epochs = max(round(steps / (videos // batch)), 1)
    keys = [
        f"model.pretrained={arguments.start if start == 'pretrained' else 'none'}",
        f"data.train={listing}",
        f"data.root={arguments.data}",
        "data.val=null",
        f"data.test={arguments.data / 'val.csv'}",
        f"train.batch_size={batch}",
        f"train.epochs={epochs}",
        f"optim.warmup_epochs={0.1 * epochs:g}",
        "train.save_every=1000",
        f"out_dir={folder}",
        f"seed={seed}",
    ]
    code = run_command(["train", "--cfg", "motion_hiera_micro", *keys, *QUICK])
    return code or run_command(["test", "--run", str(folder), *QUICK])


if __name__ == "__main__":
    main()
