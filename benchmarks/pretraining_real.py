"""Masked pre-training on real clips of fixed cameras, tested on places that no model has seen.

    python benchmarks/pretraining_real.py clips/ --one-pretraining   # hours on one core
    python benchmarks/pretraining_real.py clips/ --split random --arms cheap scratch future

`clips/groups.csv` has the columns path, label and group; a group is a place and a camera, such as
`gate-0`. Each fold holds out one place (the small ones together), so every clip is tested once by
models that never saw its place, labelled or not. `--split random` ignores places, to show by how
much that flatters. Finished arms are kept in `--runs`, and the table covers all that are there.

Arms, each with three seeds:

- `cheap`: the most frequent class (majority), and a linear classifier on the average of a clip's
  frames, reduced to 16x16 pixels (mean frame);
- `scratch`: a micro Hiera;
- `random`, `future`: the same after masked pre-training on the training places' clips without
  labels, with random units hidden, or the second half of the clip.

Every arm weights classes by their frequency. Three crops of a clip are averaged.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pretraining_lab import (
    CHUNK,
    Clips,
    classifier,
    features,
    optimise,
    read_frames,
    ridge,
    seed_of,
    shuffled_batches,
)
from pretraining_scores import summarise
from record import record
from torch import Tensor

import hiera_video as hv
from hiera_video.models.mae import MaeOutput
from hiera_video.models.registry import MaeConfig
from hiera_video.train.tasks import collapse_monitors

LARGE = 100
"""Clips of a place that is a fold of its own."""
DECODER = {"decoder_embed_dim": 64, "decoder_depth": 1, "decoder_num_heads": 2}
MASKINGS: dict[str, dict[str, Any]] = {
    "random": {"mask_ratio": 0.75},
    "future": {"masking": "future", "mask_ratio": 0.5, "target_frames": "all"},
}
ARMS = ("cheap", "scratch", *MASKINGS)
SPLITS = ("place", "random")
PRETRAINING = ("frames", "size", "steps", "batch")
"""Arguments that pre-trained weights depend on."""
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class RealSet:
    """Clips of all places in memory."""

    clips: Clips
    labels: Tensor
    places: list[str]
    classes: list[str]

    @property
    def folds(self) -> list[str]:
        """Places with many clips, then "other" if there are more."""
        large = sorted({one for one in self.places if self.places.count(one) >= LARGE})
        return large if set(large) == set(self.places) else [*large, "other"]

    def split(self, kind: str, fold: int, seed: int) -> tuple[list[int], list[int]]:
        """Return training and test rows of a fold."""
        names, count = self.folds, len(self.places)
        if kind == "place":
            assigned = [place if place in names else "other" for place in self.places]
            held_out = [place == names[fold] for place in assigned]
        else:
            order = list(range(count))
            random.Random(f"random/{seed}").shuffle(order)
            part = {row: index % len(names) for index, row in enumerate(order)}
            held_out = [part[row] == fold for row in range(count)]
        rows = range(count)
        return [r for r in rows if not held_out[r]], [r for r in rows if held_out[r]]

    def class_weights(self, rows: list[int]) -> Tensor:
        """Return the weight of each class in the loss, by the inverse of its frequency."""
        counts = self.labels[rows].bincount(minlength=len(self.classes)).clamp(min=1)
        return len(rows) / (len(self.classes) * counts.float())


def main() -> None:
    """Run the missing arms, and record the table of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, help="folder with groups.csv and the clips")
    add("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    add("--split", choices=SPLITS, default="place")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--folds", type=int, nargs="+", help="folds to run, counted from 0; all by default")
    add("--frames", type=int, default=8, help="frames of a clip")
    add("--size", type=int, default=48, help="side of a clip in pixels, a multiple of 16")
    add("--steps", type=int, default=1600, help="steps of pre-training")
    add("--batch", type=int, default=16, help="clips of a step of pre-training")
    add(
        "--one-pretraining",
        action="store_true",
        help="of each fold, for the fine-tunings of all seeds",
    )
    add("--share", type=float, default=1.0, help="share of each class that fine-tuning sees")
    add("--epochs", type=int, default=20, help="epochs of fine-tuning")
    add("--lr", type=float, default=4e-3, help="peak learning rate of fine-tuning")
    add("--layer-decay", type=float, default=0.6, help="of fine-tuning, from scratch too")
    add("--device", default="cpu")
    add("--workers", type=int, default=2, help="processes that read the videos")
    add("--runs", type=Path, default=ROOT / "runs/pretraining_real", help="folder of finished arms")
    add("--out", type=Path, help="output file instead of results/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.runs.mkdir(parents=True, exist_ok=True)
    real = read_set(arguments)
    kept = arguments.runs / "arms.jsonl"
    folds = arguments.folds or range(len(real.folds))
    for seed, fold, arm in product(arguments.seeds, folds, arguments.arms):
        key = {
            **{"split": arguments.split, "seed": seed, "fold": fold, "arm": arm},
            **settings_of(arm, arguments),
        }
        if any(key.items() <= row.items() for row in read_rows(kept)):
            continue
        started = time.monotonic()
        test, predicted, details = run(arm, real, fold, seed, arguments)
        row = {**key, "test": test, "predicted": predicted, **details}
        row["seconds"] = round(time.monotonic() - started)
        with kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps({**key, **details, "seconds": row["seconds"]}), flush=True)
    labels = real.labels.cpu().numpy()
    places = [place if place in real.folds else "other" for place in real.places]

    def table(split: str, steps: int, arms: Sequence[str]) -> list[dict[str, Any]]:
        same = argparse.Namespace(**{**vars(arguments), "steps": steps})
        rows = [
            row
            for row in read_rows(kept)
            if row["split"] == split
            and row["arm"] in arms
            and settings_of(row["arm"], same).items() <= row.items()
        ]
        return summarise(rows, labels, places)

    tried = sorted({row["steps"] for row in read_rows(kept) if "steps" in row})
    result = {
        "what": (__doc__ or "").partition("\n")[0],
        "command": " ".join(["python", *sys.argv]),
        "clips": len(real.labels),
        "places": real.folds,
        "settings": settings_of("future", arguments),
        "splits": {split: table(split, arguments.steps, ARMS) for split in SPLITS},
        "steps of pre-training": {
            steps: lines for steps in tried if (lines := table("place", steps, tuple(MASKINGS)))
        },
    }
    print(record("pretraining_real", result, arguments.out))


def settings_of(arm: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what an arm's result depends on, besides fold and seed."""
    names = list(PRETRAINING[:2])
    if arm != "cheap":
        names += ["epochs", "lr", "layer_decay", "share"]
    if arm in MASKINGS:
        names += [*PRETRAINING[2:], "one_pretraining"]
    return {name: getattr(arguments, name) for name in names}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the finished arms."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [{"share": 1.0, **json.loads(line)} for line in lines]


def read_set(arguments: argparse.Namespace) -> RealSet:
    """Read the frames of every clip, evenly spread over it, or those that an earlier call kept."""
    folder, size, length = arguments.folder, arguments.size, arguments.frames
    with (folder / "groups.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})
    kept = arguments.runs / f"frames_{length}x{size}.npy"
    if kept.exists():
        frames = torch.from_numpy(np.load(kept))
    else:
        stored = (size * 21 // 16, size * 7 // 4)  # height and width, larger than the crops
        read = partial(read_frames, count=2 * length, size=stored)
        paths = [str(folder / row["path"]) for row in rows]
        with ProcessPoolExecutor(arguments.workers) as pool:
            frames = torch.stack(list(pool.map(read, paths, chunksize=8)))
        np.save(kept, frames.numpy())
    device = torch.device(arguments.device)
    return RealSet(
        Clips(frames.to(device), size, consecutive=False, length=length),
        torch.tensor([classes.index(row["label"]) for row in rows], device=device),
        [row["group"].rpartition("-")[0] for row in rows],
        classes,
    )


def run(
    arm: str,
    real: RealSet,
    fold: int,
    seed: int,
    arguments: argparse.Namespace,
) -> tuple[list[int], dict[str, list[int]], dict[str, Any]]:
    """Return the test rows, their predicted classes by method, and details of pre-training."""
    train, test = real.split(arguments.split, fold, seed)
    if arm == "cheap":
        most = int(real.labels[train].bincount().argmax())
        linear = mean_frame_classifier(real, train, test)
        return test, {"majority": [most] * len(test), "mean frame": linear}, {}
    weights, details = {}, {}
    if arm in MASKINGS:
        first = 0 if arguments.one_pretraining else seed
        names = (arm, arguments.split, fold, first, *map(vars(arguments).get, PRETRAINING))
        kept = arguments.runs / ("_".join(map(str, names)) + ".pt")
        if not kept.exists():
            torch.save(pretrain(real, train, MASKINGS[arm], arguments, first), kept)
        weights, details = torch.load(kept, map_location="cpu")
    train = choose_share(real.labels, train, arguments.share, seed)
    torch.manual_seed(seed)
    model: Any = classifier(weights, len(real.classes), real.clips)
    model = model.to(real.labels.device)
    known, queries = (features(model, real.clips.centre, rows).flatten(1) for rows in (train, test))
    scores = ridge(known, real.labels[train], queries, len(real.classes))
    tuned = fine_tune(model, real, train, test, arguments, seed)
    return test, {f"{arm}, frozen": scores.argmax(1).tolist(), arm: tuned}, details


def choose_share(labels: Tensor, rows: list[int], share: float, seed: int) -> list[int]:
    """Return a random share of the rows of each class, at least one."""
    if share == 1:
        return rows
    generator = random.Random(f"share/{seed}")
    chosen = []
    for label in sorted(set(labels[rows].tolist())):
        of_class = [row for row in rows if labels[row] == label]
        chosen += generator.sample(of_class, max(1, round(share * len(of_class))))
    return sorted(chosen)


def mean_frame_classifier(real: RealSet, train: list[int], test: list[int]) -> list[int]:
    """Classify the average of a clip's frames, 16x16 pixels, by logistic regression."""

    def averages(rows: list[int]) -> Tensor:
        parts = [real.clips.centre(rows[i : i + CHUNK]).mean(2) for i in range(0, len(rows), CHUNK)]
        return F.adaptive_avg_pool2d(torch.cat(parts), 16).flatten(1)

    known, queries = averages(train), averages(test)
    mean_, deviation = known.mean(0), known.std(0) + 1e-6
    known, queries = (known - mean_) / deviation, (queries - mean_) / deviation
    layer = torch.nn.Linear(known.shape[1], len(real.classes)).to(known.device)
    torch.nn.init.zeros_(layer.weight)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")
    weights = real.class_weights(train)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(known), real.labels[train], weight=weights)
        loss = loss + 0.01 * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    answers: list[int] = layer(queries).argmax(1).tolist()
    return answers


def pretrain(
    real: RealSet,
    rows: list[int],
    masking: dict[str, Any],
    arguments: argparse.Namespace,
    seed: int,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return weights, and the loss and collapse monitors at the end, of a masked autoencoder."""
    torch.manual_seed(seed)
    mae = MaeConfig(variance_floor=0.01, **DECODER, **masking)
    size = (real.clips.length, real.clips.size, real.clips.size)
    model = hv.create_model("mae_hiera_micro_16x32", mae=mae, input_size=size)
    model = model.to(real.labels.device)
    crops = random.Random(seed_of("w", seed))
    batch, _ = shuffled_batches(rows, arguments.batch, seed)
    steps, trace = arguments.steps, []

    def loss(step: int) -> Tensor:
        output: MaeOutput = model(real.clips.train(batch(step), crops, (0.3, 1.0), flip=True))
        if step % max(1, steps // 10) == 0 or step == steps - 1:
            std, rank = collapse_monitors(output.latent)
            trace.append([step, *(round(float(n), 3) for n in (output.loss.detach(), std, rank))])
        return output.loss

    optimise(model, loss, steps=steps, warmup=steps // 10, lr=1e-3)
    return model.state_dict(), {"step, loss, feature_std, effective_rank": trace}


def fine_tune(
    model: Any,
    real: RealSet,
    train: list[int],
    test: list[int],
    arguments: argparse.Namespace,
    seed: int,
) -> list[int]:
    """Fine-tune and return the predicted classes of the test rows, over three crops."""
    generator = random.Random(seed_of("wt", seed))
    batch, each = shuffled_batches(train, 16, seed)
    weights = real.class_weights(train)

    def loss(step: int) -> Tensor:
        rows = batch(step)
        clips = jitter(real.clips.train(rows, generator, (0.3, 1.0), flip=True), generator)
        return F.cross_entropy(model(clips), real.labels[rows], weight=weights, label_smoothing=0.1)

    steps = arguments.epochs * each
    optimise(
        model,
        loss,
        steps=steps,
        warmup=steps // 6,
        lr=arguments.lr,
        layer_decay=arguments.layer_decay,
    )
    answers = []
    with torch.no_grad():
        for first in range(0, len(test), CHUNK):
            views = [real.clips.centre(test[first : first + CHUNK], place) for place in (0, 0.5, 1)]
            answers += sum(model(view).softmax(1) for view in views).argmax(1).tolist()
    return answers


def jitter(clips: Tensor, generator: random.Random) -> Tensor:
    """Change each clip's brightness, and the contrast of each channel."""
    draw = generator.uniform
    gains = [[draw(0.7, 1.3) * draw(0.9, 1.1) for _ in range(3)] for _ in clips]
    shifts = [draw(-0.4, 0.4) for _ in clips]
    average = clips.mean((2, 3, 4), keepdim=True)
    gain = torch.tensor(gains, device=clips.device).view(-1, 3, 1, 1, 1)
    shift = torch.tensor(shifts, device=clips.device).view(-1, 1, 1, 1, 1)
    return (clips - average) * gain + average + shift


if __name__ == "__main__":
    main()
