"""What has to be hidden so that masked pre-training helps the motion set: units drawn at random, or the future.

    python datasets/motion/prepare.py --out data/motion_hard --hard
    python benchmarks/pretraining_why.py                       # a quarter of an hour on one idle core

Everything in memory, one seed. Pre-trains as `configs/motion_hard_hiera_micro_mae.yaml` does, with either masking; then, on
held-out pictures: a ridge regression on frozen features (mean over space, moments apart), and two passes of fine-tuning
from each, and from scratch, at several rates.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from typing import Any

import torch
import torch.nn.functional as F
from record import record
from torch import Tensor, nn

import hiera_video as hv
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.transforms.train_eval import random_box
from hiera_video.models.registry import MaeConfig

BATCH, CLASSES = 16, 8
MEAN, DEVIATION = 0.45, 0.225  # of the pixels, as the recipe normalises
MASKINGS: dict[str, dict[str, Any]] = {
    "random units, 0.3": {
        "masking": "random",
        "mask_ratio": 0.3,
    },  # at 0.5 and 0.75 the loss stays at 0.74 to 0.84
    "the future, 0.5": {"masking": "future", "mask_ratio": 0.5},
}
RECIPES = ((1e-3, 1.0), (1e-3, 0.6), (2e-3, 0.6), (4e-3, 0.6))  # lr, layer decay
Clips = tuple[Tensor, Tensor]


def read(path: str) -> Clips:
    """All frames, uint8 [N, 24, 3, H, W], and labels [N]."""
    records = read_manifest(path).records
    frames = []
    for item in records:
        with hv.open_video(item.path) as video:
            frames.append(torch.from_numpy(video.frames(range(24))))
    labels = [item.label for item in records]
    return torch.stack(frames).movedim(-1, 2).contiguous(), torch.tensor(labels)


def cut(
    frames: Tensor, generator: random.Random | None, scale: tuple[float, float] = (0.7, 1.0)
) -> Tensor:
    """Random clips and crops [B, 3, 16, 32, 32]; the middle where there is no generator."""
    clips = []
    for video in frames:
        if generator is None:
            clips.append(scaled(video[4:20], 36, 43)[..., 2:34, 6:38])
            continue
        start = generator.randint(0, 8)
        top, left, height, width = random_box(
            40, 48, scale=scale, ratio=(0.75, 4 / 3), generator=generator
        )
        clips.append(
            scaled(video[start : start + 16, :, top : top + height, left : left + width], 32, 32)
        )
    return ((torch.stack(clips) - MEAN) / DEVIATION).transpose(1, 2)


def scaled(frames: Tensor, height: int, width: int) -> Tensor:
    """uint8 [T, 3, H, W] to float [T, 3, height, width] in [0, 1]."""
    return F.interpolate(
        frames.float() / 255, (height, width), mode="bilinear", align_corners=False
    )


def learn(
    model: nn.Module,
    rates: list[tuple[nn.Parameter, float]],
    steps: int,
    warmup: int,
    lr: float,
    loss: Any,
) -> None:
    """AdamW, cosine, gradient norm 1; `loss(step)` is the loss of a step."""
    groups = [
        {"params": [p], "lr": 0.0, "rate": rate, "weight_decay": 0.05 * (p.ndim > 1)}
        for p, rate in rates
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    model.train()
    for step in range(steps):
        progress = (step - warmup) / max(steps - warmup, 1)
        now = lr * (
            (step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * progress))
        )
        for group in optimizer.param_groups:
            group["lr"] = now * group["rate"]
        optimizer.zero_grad()
        loss(step).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()


def shuffled(count: int, seed: int) -> Any:
    """Step → the videos of its batch, every video once a pass."""
    generator = torch.Generator().manual_seed(seed)
    orders: dict[int, Tensor] = {}
    each = count // BATCH

    def batch(step: int) -> Tensor:
        order = orders.setdefault(step // each, torch.randperm(count, generator=generator))
        return order[step % each * BATCH :][:BATCH]

    return batch


def pretrain(
    masking: dict[str, Any], train: Clips, val: Clips, passes: int
) -> tuple[dict[str, Tensor], float]:
    """Weights and held-out loss of the masked autoencoder."""
    torch.manual_seed(0)
    mae = MaeConfig(
        target_frames="all", decoder_embed_dim=64, decoder_depth=1, decoder_num_heads=2, **masking
    )
    model = hv.create_model("mae_hiera_micro_16x32", mae=mae)
    crops, batch, each = random.Random(0), shuffled(len(train[0]), 0), len(train[0]) // BATCH
    learn(model, [(p, 1.0) for p in model.parameters()], passes * each, each, 1e-3,
          lambda step: model(cut(train[0][batch(step)], crops, (0.5, 1.0))).loss)  # fmt: skip
    with torch.no_grad():
        losses = [model(cut(part, None)).loss.item() for part in val[0].split(32)]
    return model.state_dict(), sum(losses) / len(losses)


def classifier(weights: dict[str, Tensor]) -> nn.Module:
    """A micro Hiera with the encoder's `weights`."""
    torch.manual_seed(0)
    model = hv.create_model("hiera_micro_16x32", num_classes=CLASSES)
    own = model.state_dict()
    model.load_state_dict(
        {name: value for name, value in weights.items() if name in own}, strict=False
    )
    return model


def fine_tune(model: Any, train: Clips, val: Clips, passes: int, lr: float, decay: float) -> float:
    """Held-out top-1 in percent."""
    frames, labels = train
    crops, batch, each = random.Random(0), shuffled(len(labels), 0), len(labels) // BATCH
    rates = [
        (p, decay ** (model.num_layers - model.layer_id(name)))
        for name, p in model.named_parameters()
    ]

    def loss(step: int) -> Tensor:
        rows = batch(step)
        return F.cross_entropy(model(cut(frames[rows], crops)), labels[rows])

    learn(model, rates, passes * each, max(1, passes * each // 5), lr, loss)
    with torch.no_grad():
        answers = torch.cat([model(cut(part, None)).argmax(1) for part in val[0].split(32)])
    return round((answers == val[1]).float().mean().item() * 100, 1)


@torch.no_grad()
def probe(model: Any, train: Clips, val: Clips) -> float:
    """Held-out top-1 in percent of a ridge regression on the third stage's map, mean over space."""
    features = []
    for frames, _ in (train, val):
        maps = [
            model.eval().forward_intermediates(cut(part, None))[2].mean((2, 3)).flatten(1)
            for part in frames.split(32)
        ]
        features.append(torch.cat(maps))
    mean, deviation = features[0].mean(0), features[0].std(0) + 1e-6
    known, asked = ((part - mean) / deviation for part in features)
    targets = F.one_hot(train[1], CLASSES) - 1 / CLASSES
    solution = torch.linalg.solve(
        known.T @ known + 100 * torch.eye(known.shape[1]), known.T @ targets
    )
    return round(((asked @ solution).argmax(1) == val[1]).float().mean().item() * 100, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", default="data/motion_hard", help="the motion set's harder variant"
    )
    parser.add_argument("--passes", type=int, default=12, help="of pre-training")
    parser.add_argument("--budget", type=int, default=2, help="passes of fine-tuning")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train, val = read(f"{arguments.data}/train.csv"), read(f"{arguments.data}/val.csv")
    rows = []
    for name, masking in {"from scratch": None, **MASKINGS}.items():
        weights, held_out = (
            pretrain(masking, train, val, arguments.passes) if masking else ({}, None)
        )
        row: dict[str, Any] = {"start": name, "pretraining_loss": held_out and round(held_out, 4)}
        row["probe_top1"] = probe(classifier(weights), train, val)
        row["fine_tuned_top1"] = {
            f"lr {lr:g}, layer decay {decay:g}": fine_tune(
                classifier(weights), train, val, arguments.budget, lr, decay
            )
            for lr, decay in RECIPES
        }
        print(row, flush=True)
        rows.append(row)
    result = {
        "what": "motion set, harder variant, seed 0, in memory, one centre view: held-out loss of masked pre-training; top-1 "
        f"of a ridge regression on frozen features; top-1 after {arguments.budget} passes of fine-tuning",
        "command": " ".join(["python", *sys.argv]),
        "rows": rows,
    }
    print(record("pretraining_why", result))


if __name__ == "__main__":
    main()
