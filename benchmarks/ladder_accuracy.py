"""Accuracy of every rung from MViTv2 to Hiera on the motion set, with and without pre-training.

    hiera-video prepare motion output=data/motion
    python benchmarks/ladder_accuracy.py --starts scratch    # seven minutes of one thread a seed
    python benchmarks/ladder_accuracy.py                     # with pre-training too: an hour

Every model gets the same clips in the same order: masked pre-training on the training videos
without labels (the last half of each clip is hidden), then the same fine-tuning from these weights
and from scratch. All in memory, at micro size: 8 frames of 32×32 pixels, one of two of the video.
Finished parts are kept in a file of lines, and a run goes on where one stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pretraining_lab import (
    CHUNK,
    Clips,
    held_out_loss,
    optimise,
    read_frames,
    seed_of,
    shuffled_batches,
    top1,
)
from record import record
from torch import Tensor

import hiera_video as hv
from hiera_video.data.manifest.read import read_manifest
from hiera_video.models.registry import MaeConfig

MODELS = ("mvitv2", *(f"ladder_{rung}" for rung in "abcdef"), "vit")
CHEAPEST_FIRST = ("vit", *(f"ladder_{rung}" for rung in "fedcb"), "mvitv2", "ladder_a")
SIZE, LENGTH, STRIDE, CLASSES, BATCH = 32, 8, 2, 8, 16
INPUT = (LENGTH, SIZE, SIZE)
MAE = MaeConfig(
    masking="future",
    mask_ratio=0.5,
    target_frames="all",
    decoder_embed_dim=64,
    decoder_depth=1,
    decoder_num_heads=2,
)
PRETRAINING = {"steps": 1440, "warmup": 240, "lr": 1e-3}
FINE_TUNING = {"steps": 240, "warmup": 48, "lr": 1e-3}
STARTS = ("scratch", "pretrained")
Videos = tuple[Clips, Tensor]
"""Clips of a split, and their labels."""
Parts = dict[tuple[int, str, str], dict[str, float]]
"""Measurements by seed, start and model."""


def main() -> None:
    """Train what is missing, seed by seed, and record the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default="data/motion", help="folder of the set")
    parser.add_argument("--models", nargs="+", default=CHEAPEST_FIRST, choices=MODELS)
    parser.add_argument("--starts", nargs="+", default=STARTS, choices=STARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parts", type=Path, default=Path("runs/ladder_accuracy.jsonl"))
    parser.add_argument("--out", type=Path, help="output file instead of results/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.parts.parent.mkdir(parents=True, exist_ok=True)
    train, val = (read_split(arguments.data, split) for split in ("train", "val"))
    parts = read_parts(arguments.parts)
    for key in product(arguments.seeds, arguments.starts, arguments.models):
        if key not in parts:
            seed, start, name = key
            parts[key] = run(name, seed, start, train, val)
            with arguments.parts.open("a") as file:
                file.write(json.dumps([*key, parts[key]]) + "\n")
            print(*key, parts[key], flush=True)
    result = {
        "what": f"top-1 (%) on {len(val[1])} held-out videos of {arguments.data.name}, one centre "
        "view, after the same fine-tuning from scratch and from masked pre-training",
        "input_size": INPUT,
        "pretraining": {"batch": BATCH, "videos": len(train[1]), **PRETRAINING},
        "fine_tuning": {"batch": BATCH, "videos": len(train[1]), **FINE_TUNING},
        "mae": {key: getattr(MAE, key) for key in ("masking", "mask_ratio")},
        "models": summary(parts),
    }
    record("ladder_accuracy", result, arguments.out)


def read_parts(path: Path) -> Parts:
    """Return the finished parts in `path`; none if there is no such file."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {(seed, start, name): row for seed, start, name, row in map(json.loads, lines)}


def read_split(folder: Path, split: str) -> Videos:
    """Read all frames and labels of a list; frames are decoded once and kept beside it."""
    records, kept = read_manifest(str(folder / f"{split}.csv")).records, folder / f"{split}.npy"
    if not kept.is_file():
        np.save(kept, torch.stack([read_frames(item.path) for item in records]).numpy())
    frames = torch.from_numpy(np.load(kept))
    labels = torch.tensor([item.label for item in records])
    return Clips(frames, SIZE, consecutive=True, length=LENGTH, stride=STRIDE), labels


def run(name: str, seed: int, start: str, train: Videos, val: Videos) -> dict[str, float]:
    """Return the accuracy of one model and seed from one start."""
    started, row = time.process_time(), {}
    with tempfile.TemporaryDirectory() as folder:
        source = None
        if start == "pretrained":
            source = f"{folder}/weights.pt"
            row["mae_loss"] = pretrain(name, seed, train, val, source)
        row["top1"] = fine_tune(name, seed, train, val, source)
    return {**row, "cpu_seconds": round(time.process_time() - started)}


def pretrain(name: str, seed: int, train: Videos, val: Videos, path: str) -> float:
    """Write the weights of a masked autoencoder to `path`; return its held-out loss."""
    torch.manual_seed(seed)
    model = hv.create_model(f"mae_{name}_micro_16x32", input_size=INPUT, mae=MAE)
    crops, batch = batches(train, "crops", seed)
    optimise(
        model,
        lambda step: model(train[0].train(batch(step), crops, scale=(0.5, 1.0), flip=False)).loss,
        **PRETRAINING,
    )
    torch.save(model.state_dict(), path)
    return round(held_out_loss(model, centre_views(val)), 4)


def fine_tune(name: str, seed: int, train: Videos, val: Videos, source: str | None) -> float:
    """Fine-tune from the weights in `source`, or from scratch; return top-1 on `val`."""
    torch.manual_seed(seed)
    model = hv.create_model(
        f"{name}_micro_16x32", num_classes=CLASSES, input_size=INPUT, pretrained=source or "none"
    )
    crops, batch = batches(train, "tune", seed)

    def loss(step: int) -> Tensor:
        rows = batch(step)
        logits = model(train[0].train(rows, crops, scale=(0.7, 1.0), flip=False))
        return F.cross_entropy(logits, train[1][rows])

    optimise(model, loss, **FINE_TUNING)
    with torch.no_grad():
        scores = torch.cat([model(clips) for clips in centre_views(val)])
    return top1(scores, val[1])


def batches(
    train: Videos, name: str, seed: int
) -> tuple[random.Random, Callable[[int], list[int]]]:
    """Return the generator of the crops, and a function from step to the rows of its batch."""
    batch, _ = shuffled_batches(range(len(train[1])), BATCH, seed)
    return random.Random(seed_of(name, seed)), batch


def centre_views(val: Videos) -> Iterator[Tensor]:
    """Yield the middle clips, cropped from enlarged frames."""
    for first in range(0, len(val[1]), CHUNK):
        rows = list(range(first, min(first + CHUNK, len(val[1]))))
        yield val[0].centre(rows, share=SIZE / 36)


def summary(parts: Parts) -> dict[str, dict[str, Any]]:
    """Return each model's mean accuracy and the parts of each seed, by start.

    >>> summary({(0, "scratch", "vit"): {"top1": 20.0}, (1, "scratch", "vit"): {"top1": 30.0}})
    {'vit': {'scratch': {'mean': 25.0, 'seeds': {0: {'top1': 20.0}, 1: {'top1': 30.0}}}}}
    """
    found: dict[str, dict[str, Any]] = {}
    for name, start in product(MODELS, STARTS):
        rows = {seed: row for (seed, *key), row in sorted(parts.items()) if key == [start, name]}
        if rows:
            average = round(mean(row["top1"] for row in rows.values()), 1)
            found.setdefault(name, {})[start] = {"mean": average, "seeds": rows}
    return found


if __name__ == "__main__":
    main()
