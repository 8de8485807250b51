"""`hiera-video finetune` on real clips of fixed cameras, tested on places that it never saw.

    python benchmarks/pretraining_real.py clips/ --one-pretraining --size 48 --frames 8 \
        --epochs 20 --arms cheap scratch future         # pre-trains, once for each place
    python benchmarks/finetune_real.py clips/                   # resumes

`pretraining_real.py` describes the clips and the places, and leaves their frames and the
pre-trained weights of each fold in its `--runs`. Here, `finetune` gets the clips of the other
places with their groups, divides them itself, chooses the recipe, and is tested on the place held
out: from nothing, and from those weights, which never saw that place either. The predictions of all
places are scored together, as in `pretraining_real.py`.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pretraining_real import DECODER, RealSet, read_set
from pretraining_scores import SCORES, score_seeds, summarise
from record import record

import hiera_video as hv
from hiera_video.cli.main import run_command
from hiera_video.models.registry import MaeConfig

SIZE, LENGTH, BATCH = 48, 8, 16
"""Pixels and frames of a clip; batch of the pre-training."""
ROOT = Path(__file__).parents[1]
KEYS = (
    "data.decoder=frames",
    f"model.input_size=[{LENGTH},{SIZE},{SIZE}]",
    f"clip.num_frames={LENGTH}",
    "clip.sampling=segments",
    "test.clips=1",
    "test.crops=3",
    "train.epochs=20",
    "data.workers=0",
)


def main() -> None:
    """Run what is missing; record each run, and the table over all places."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, help="folder with groups.csv and the clips")
    add("--pretraining", type=Path, default=ROOT / "runs/pretraining_real", help="its --runs")
    add("--runs", type=Path, default=ROOT / "runs/finetune_real", help="finished ones are kept")
    add("--steps", type=int, nargs="+", default=[0, 1600], help="of pre-training; 0: none")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--places", type=int, nargs="+", help="folds to run, counted from 0; all by default")
    add("--out", type=Path, help="output file instead of results/")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    reading = {"frames": LENGTH, "size": SIZE, "device": "cpu", "workers": 1}
    options = {"folder": arguments.folder, "runs": arguments.pretraining, **reading}
    real = read_set(argparse.Namespace(**options))
    paths = write_frames(real, arguments.folder, arguments.runs)
    folds = arguments.places or range(len(real.folds))
    for seed, fold, steps in product(arguments.seeds, folds, arguments.steps):
        run = arguments.runs / f"{steps}_{fold}_{seed}"
        if not (run / "results.json").is_file():
            code = finetune(arguments, real, paths, run, steps, fold, seed)
            assert code == 0, (run, code)
        print(run.name, json.loads((run / "results.json").read_text())["top1"], flush=True)
    save(arguments, real)


def write_frames(real: RealSet, clips: Path, runs: Path) -> list[str]:
    """Write each clip's frames as a folder of pictures, with groups; return the folders."""
    with (clips / "groups.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    paths = [str(Path("frames", row["label"], Path(row["path"]).stem)) for row in rows]
    done = runs / "groups.csv"
    if done.exists():
        return paths
    for path, frames in zip(paths, real.clips.frames, strict=True):
        (runs / path).mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(frames.movedim(1, -1).numpy()):
            Image.fromarray(frame).save(runs / path / f"{number:02}.png")
    groups = [f"{path},{row['group']}" for path, row in zip(paths, rows, strict=True)]
    done.write_text("\n".join(["path,group", *groups]) + "\n")
    return paths


def finetune(
    arguments: Any, real: RealSet, paths: list[str], run: Path, steps: int, fold: int, seed: int
) -> int:
    """Run `hiera-video finetune` on the clips of all places but one."""
    (arguments.runs / "labels.txt").write_text("\n".join(real.classes) + "\n")
    lists = [arguments.runs / f"{name}_{fold}.csv" for name in ("others", "place")]
    for listing, rows in zip(lists, real.split("place", fold, 0), strict=True):
        lines = [f"{paths[row]} {real.labels[row]}" for row in rows]
        listing.write_text("\n".join(lines) + "\n")
    weights = str(save_weights(arguments, steps, fold)) if steps else "none"
    model = ["--model", "hiera_micro_16x32", "--checkpoint", weights]
    own = ["--groups", str(arguments.runs / "groups.csv"), "--test", str(lists[1])]
    command = ["finetune", str(lists[0]), *model, *own, f"output={run}", *KEYS]
    return run_command([*command, f"seed={seed}"])


def save_weights(arguments: Any, steps: int, fold: int) -> Path:
    """Save the pre-trained weights of a fold as a checkpoint."""
    name = f"future_place_{fold}_0_{LENGTH}_{SIZE}_{steps}_{BATCH}"
    weights, _ = torch.load(arguments.pretraining / f"{name}.pt", map_location="cpu")
    mae = MaeConfig(masking="future", mask_ratio=0.5, target_frames="all", **DECODER)
    size = (LENGTH, SIZE, SIZE)
    model = hv.create_model("mae_hiera_micro_16x32", mae=mae, input_size=size)
    model.load_state_dict(weights)
    return hv.save_pretrained(model, arguments.runs / f"weights_{steps}_{fold}")


def save(arguments: Any, real: RealSet) -> None:
    """Record the scores."""
    rows, runs = [], []
    labels = real.labels.numpy()
    for seed, fold, steps in product(arguments.seeds, range(len(real.folds)), arguments.steps):
        file = arguments.runs / f"{steps}_{fold}_{seed}/predictions.csv"
        if file.is_file():
            with file.open(encoding="utf-8", newline="") as lines:
                answers = {int(line["row"]): int(line["answer"]) for line in csv.DictReader(lines)}
            test = real.split("place", fold, 0)[1]
            predicted = [answers[row] for row in range(len(test))]
            name = f"{steps} steps" if steps else "scratch"
            rows.append({"seed": seed, "test": test, "predicted": {name: predicted}})
            known, found = labels[test], np.array(predicted)
            line = {"place": real.folds[fold], "clips": len(test), "steps": steps, "seed": seed}
            for metric, score in SCORES.items():
                summary = score_seeds(score, known, {seed: found})
                line |= {metric: summary["mean"], f"{metric}_interval": summary["interval"]}
            runs.append(line)
    places = [place if place in real.folds else "other" for place in real.places]
    result = {
        "what": "finetune on real clips of fixed cameras after `steps` of pre-training, tested on "
        "places that it never saw; macro F1 and top-1 in percent, intervals over clips; methods: "
        "pooled over all places",
        "command": "python benchmarks/finetune_real.py clips/ --steps "
        + " ".join(map(str, arguments.steps))
        + " --seeds "
        + " ".join(map(str, arguments.seeds)),
        "clips": len(real.labels),
        "runs": runs,
        "methods": summarise(rows, labels, places),
    }
    record("finetune_real", result, arguments.out)


if __name__ == "__main__":
    main()
