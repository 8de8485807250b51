"""Find out what makes masked pre-training on the motion set fail, one change at a time.

    hiera-video prepare motion output=data/motion
    python benchmarks/pretraining_why.py --device cuda      # on a CPU, ten minutes an experiment

Each experiment pre-trains a micro Hiera on all training videos without labels, in memory, and
measures features and fine-tuning on the held-out videos:

- `loss`, `feature_std`, `effective_rank`: on held-out clips with masks;
- `ridge`: top-1 of a ridge regression on frozen features, time steps apart;
- `few`: top-1 after fine-tuning on 24 videos a class, 360 steps;
- `few, layer decay`: the same with a higher learning rate and layer decay 0.75;
- `short`: top-1 after two epochs of fine-tuning on all videos.

`--brief` shows within a minute on a CPU whether a change prevents the collapse: at most 160 steps
of 16 clips, half the warm-up, and no fine-tuning. Rows that the output has are kept.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pretraining_lab import (
    CHUNK,
    Clips,
    classifier,
    features,
    held_out_loss,
    optimise,
    read_frames,
    ridge,
    seed_of,
    shuffled_batches,
    top1,
)
from record import RESULTS, record
from torch import Tensor, nn

import hiera_video as hv
from hiera_video.data.manifest.read import read_manifest
from hiera_video.models.mae import MaeOutput, MaskedAutoencoderHiera
from hiera_video.models.registry import MaeConfig
from hiera_video.models.tokens import gather_rows, indices_of_true
from hiera_video.train.tasks import collapse_monitors

SIZE, CLASSES, BATCH = 32, 8, 16
Videos = tuple[Clips, Tensor]
"""Clips of a split, and their labels on the same device."""

SMALL_DECODER = {"decoder_embed_dim": 64, "decoder_depth": 1, "decoder_num_heads": 2}
FUTURE = {"masking": "future", "mask_ratio": 0.5, "target_frames": "all", **SMALL_DECODER}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A pre-training: the demo's first recipe, with the changes that differ from the defaults."""

    name: str
    mae: dict[str, Any] = field(default_factory=dict)
    steps: int = 480
    """Optimizer steps; 0 starts from scratch."""
    repeats: int = 2
    """Clips of each of the batch's 16 videos."""
    lr: float = 1e-3
    warmup: int = 120
    weight_decay: float = 0.05
    clip_grad: float = 1.0
    change: str = ""
    """A change to the model or the loss, a key of `CHANGES`, or "moving ground"."""


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """A fine-tuning that follows each pre-training."""

    steps: int
    lr: float
    warmup: int
    layer_decay: float = 1.0
    videos: int | None = None
    """Videos of each class; None for all."""


FINE_TUNINGS = {
    "few": FineTuning(steps=360, lr=1e-3, warmup=60, videos=24),
    "few, layer decay": FineTuning(steps=360, lr=2e-3, warmup=60, layer_decay=0.75, videos=24),
    "short": FineTuning(steps=240, lr=1e-3, warmup=48),
}


def plain_loss(output: MaeOutput, clips: Tensor, model: MaskedAutoencoderHiera) -> Tensor:
    return output.loss


def loss_by_variance(output: MaeOutput, clips: Tensor, model: MaskedAutoencoderHiera) -> Tensor:
    """Weight each patch's error by the variance of its pixels."""
    with torch.no_grad():
        hidden = indices_of_true(output.masked, output.pred.shape[1])
        patches = gather_rows(model.target.patches(clips.float()), hidden)
        weights = patches.var(dim=-1) + 1e-4
    errors = (output.pred.float() - output.target).square().mean(dim=-1)
    return (errors * weights).sum() / weights.sum()


def predict_raw_pixels(model: MaskedAutoencoderHiera) -> None:
    model.target.normalise = lambda patches: patches  # type: ignore[method-assign]


def drop_fusion(model: MaskedAutoencoderHiera) -> None:
    """Encode with the last stage alone."""
    model._fuse = lambda index, tokens: tokens.new_zeros(())  # type: ignore[method-assign]


def freeze_positions(model: MaskedAutoencoderHiera) -> None:
    for embedding in (model.pos_embed_spatial, model.pos_embed_temporal):
        nn.init.zeros_(embedding)
        embedding.requires_grad_(False)


def strengthen_positions(model: MaskedAutoencoderHiera) -> None:
    """Draw position embeddings 25 times as large as the authors' initial ones."""
    for name in ("pos_embed_spatial", "pos_embed_temporal", "decoder_pos_embed"):
        nn.init.normal_(model.get_parameter(name), std=0.5)


def change_nothing(model: MaskedAutoencoderHiera) -> None:
    pass


CHANGES: dict[str, Callable[[MaskedAutoencoderHiera], None]] = {
    "raw pixels": predict_raw_pixels,
    "no fusion": drop_fusion,
    "no positions": freeze_positions,
    "strong positions": strengthen_positions,
}

EXPERIMENTS = [
    Experiment(name="from scratch", steps=0),
    Experiment(name="first recipe: random units, 0.75"),
    # flat patches
    Experiment(name="variance floor 0.01", mae={"variance_floor": 0.01}),
    Experiment(name="variance floor 0.1", mae={"variance_floor": 0.1}),
    Experiment(name="loss weighted by variance", change="variance"),
    Experiment(name="raw pixels", change="raw pixels"),
    Experiment(name="moving, textured ground", change="moving ground"),
    # positions, number of units
    Experiment(name="no position embeddings", change="no positions"),
    Experiment(name="strong initial position embeddings", change="strong positions"),
    Experiment(name="mask ratio 0.5", mae={"mask_ratio": 0.5}),
    Experiment(name="mask ratio 0.9", mae={"mask_ratio": 0.9}),
    Experiment(name="tubes, 0.75", mae={"masking": "tube"}),
    # architecture
    Experiment(name="last stage alone, no fusion", change="no fusion"),
    Experiment(name="decoder 64 wide, 1 block", mae=SMALL_DECODER),
    Experiment(name="decoder 4 blocks", mae={"decoder_depth": 4}),
    Experiment(name="both frames of a token", mae={"target_frames": "all"}),
    # optimisation
    Experiment(name="lr 3e-4", lr=3e-4),
    Experiment(name="lr 3e-3", lr=3e-3),
    Experiment(name="warm-up 24 steps", warmup=24),
    Experiment(name="gradient clip 0.02", clip_grad=0.02),
    Experiment(name="weight decay 0", weight_decay=0.0),
    Experiment(name="weight decay 0.2", weight_decay=0.2),
    Experiment(name="three times the steps", steps=1440),
    # what has to be predicted
    Experiment(name="the future", mae=FUTURE, repeats=1, steps=720),
    Experiment(
        name="the future, variance floor 0.05",
        mae={**FUTURE, "variance_floor": 0.05},
        repeats=1,
        steps=720,
    ),
    Experiment(
        name="the future, first frames, floor 0.05",
        mae={**FUTURE, "target_frames": "first", "variance_floor": 0.05},
        repeats=1,
        steps=720,
    ),
]


def main() -> None:
    """Run the experiments that are not yet in the output, and record the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data/motion", help="folder of the motion set")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="names of experiments")
    parser.add_argument("--brief", action="store_true", help="few steps and no fine-tuning")
    parser.add_argument("--out", type=Path, help="output file instead of results/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    train, val = (read_split(f"{arguments.data}/{split}.csv", device) for split in ("train", "val"))
    name = "pretraining_why_brief" if arguments.brief else "pretraining_why"
    path = arguments.out or RESULTS / f"{name}.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    for experiment in EXPERIMENTS:
        if arguments.only and experiment.name not in arguments.only:
            continue
        if arguments.brief:
            experiment = shorten(experiment)
        key = {"experiment": asdict(experiment), "seed": arguments.seed}
        if any(key.items() <= row.items() for row in rows):
            continue
        row = run(
            experiment,
            train,
            val,
            arguments.seed,
            fine_tunings={} if arguments.brief else FINE_TUNINGS,
        )
        print(json.dumps(row), flush=True)
        rows.append(row)
        result = {
            "what": (__doc__ or "").partition("\n")[0],
            "command": " ".join(["python", *sys.argv]),
            "rows": rows,
        }
        record(name, result, path)


def shorten(experiment: Experiment) -> Experiment:
    """Return the experiment with at most 160 steps of one clip a video, and half the warm-up."""
    steps, warmup = min(experiment.steps, 160), experiment.warmup // 2
    return replace(experiment, steps=steps, warmup=warmup, repeats=1)


def read_split(path: str, device: torch.device) -> Videos:
    """Read all frames and labels of a list."""
    records = read_manifest(path).records
    frames = torch.stack([read_frames(item.path) for item in records])
    labels = torch.tensor([item.label for item in records])
    return Clips(frames.to(device), SIZE, consecutive=True), labels.to(device)


def run(
    experiment: Experiment,
    train: Videos,
    val: Videos,
    seed: int,
    fine_tunings: Mapping[str, FineTuning],
) -> dict[str, Any]:
    """Return the measurements of one experiment."""
    weights, row = pretrain(experiment, train, val, seed) if experiment.steps else ({}, {})
    row = {"experiment": asdict(experiment), "seed": seed, **row}
    model = start(weights, seed, train)
    known, queries = (
        features(model, centre(clips), range(len(labels))).flatten(1)
        for clips, labels in (train, val)
    )
    row["ridge"] = top1(ridge(known, train[1], queries, CLASSES), val[1])
    for name, tuning in fine_tunings.items():
        row[name] = fine_tune(start(weights, seed, train), tuning, train, val, seed)
    return row


def centre(clips: Clips) -> Callable[[list[int]], Tensor]:
    """Return the test's view: the middle clip, cropped from an enlarged frame."""
    return lambda rows: clips.centre(rows, share=SIZE / 36)


def pretrain(
    experiment: Experiment, train: Videos, val: Videos, seed: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return weights and measurements of a masked autoencoder."""
    clips, device = train[0], train[1].device
    torch.manual_seed(seed)
    decoder = {"decoder_embed_dim": 128, "decoder_depth": 2, "decoder_num_heads": 4}
    mae = MaeConfig(**{"mask_ratio": 0.75, **decoder, **experiment.mae})
    model = hv.create_model("mae_hiera_micro_16x32", mae=mae).to(device)
    assert isinstance(model, MaskedAutoencoderHiera)
    CHANGES.get(experiment.change, change_nothing)(model)
    loss_of = loss_by_variance if experiment.change == "variance" else plain_loss
    crops = random.Random(seed_of("crops", seed))
    batch, _ = shuffled_batches(range(len(train[1])), BATCH, seed)
    trace = []

    def loss(step: int) -> Tensor:
        rows = [row for row in batch(step) for _ in range(experiment.repeats)]
        inputs = clips.train(rows, crops, scale=(0.5, 1.0), flip=False)
        if experiment.change == "moving ground":
            inputs = inputs + 0.5 * moving_ground(len(inputs), device)
        output: MaeOutput = model(inputs)
        if step % (experiment.steps // 12) == 0 or step == experiment.steps - 1:
            std, rank = collapse_monitors(output.latent)
            trace.append([step, *(round(float(n), 3) for n in (output.loss.detach(), std, rank))])
        return loss_of(output, inputs, model)

    optimise(
        model,
        loss,
        steps=experiment.steps,
        warmup=experiment.warmup,
        lr=experiment.lr,
        weight_decay=experiment.weight_decay,
        clip_grad=experiment.clip_grad,
    )
    views = [centre(val[0])(rows) for rows in chunks(len(val[1]))]
    with torch.no_grad():
        latent = torch.cat([model(clips).latent for clips in views])
    std, rank = collapse_monitors(latent)
    return model.state_dict(), {
        "loss": round(held_out_loss(model, views), 4),
        "feature_std": round(float(std), 3),
        "effective_rank": round(float(rank), 2),
        "step, loss, feature_std, effective_rank": trace,
    }


def moving_ground(count: int, device: torch.device) -> Tensor:
    """Return smooth random textures that shift by up to a pixel a frame, [B, 3, 16, 32, 32]."""
    textures = F.interpolate(
        torch.randn(count, 3, 12, 12, device=device), (64, 64), mode="bilinear"
    )
    shifts = torch.randint(-1, 2, (count, 2)).tolist()
    clips = [
        torch.stack(
            [
                texture[:, 16 + time * y :][:, :SIZE, 16 + time * x :][:, :, :SIZE]
                for time in range(16)
            ],
            dim=1,
        )
        for texture, (y, x) in zip(textures, shifts)
    ]
    return torch.stack(clips)


def chunks(count: int) -> list[list[int]]:
    return [list(range(first, min(first + CHUNK, count))) for first in range(0, count, CHUNK)]


def start(weights: dict[str, Tensor], seed: int, train: Videos) -> nn.Module:
    torch.manual_seed(seed)
    return classifier(weights, CLASSES, train[0]).to(train[1].device)


def fine_tune(model: Any, tuning: FineTuning, train: Videos, val: Videos, seed: int) -> float:
    """Fine-tune and return top-1 on `val` in percent."""
    clips, labels = train
    crops = random.Random(seed_of("tune", seed))
    batch, _ = shuffled_batches(choose_videos(labels, tuning.videos, seed), BATCH, seed)

    def loss(step: int) -> Tensor:
        rows = batch(step)
        logits = model(clips.train(rows, crops, scale=(0.7, 1.0), flip=False))
        return F.cross_entropy(logits, labels[rows])

    optimise(
        model,
        loss,
        steps=tuning.steps,
        warmup=tuning.warmup,
        lr=tuning.lr,
        layer_decay=tuning.layer_decay,
    )
    with torch.no_grad():
        scores = torch.cat([model(centre(val[0])(rows)) for rows in chunks(len(val[1]))])
    return top1(scores, val[1])


def choose_videos(labels: Tensor, each: int | None, seed: int) -> list[int]:
    """Return rows of `each` random videos of each class, or all rows."""
    if each is None:
        return list(range(len(labels)))
    generator = random.Random(f"few/{seed}")
    rows = []
    for label in range(CLASSES):
        rows += sorted(generator.sample((labels == label).nonzero().flatten().tolist(), each))
    return rows


if __name__ == "__main__":
    main()
