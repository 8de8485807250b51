"""Compare masking random units with masking the future, in pre-training on the motion set.

    python datasets/motion/prepare.py --out data/motion_hard --hard
    python benchmarks/pretraining_why.py          # a quarter of an hour on one idle core

Pre-trains like `configs/motion_hard_hiera_micro_mae.yaml` with either masking, in memory and with
one seed. Then measures accuracy on held-out videos: of a ridge regression on frozen features (mean
over space, time steps separate), and of two epochs of fine-tuning at several learning rates, from
each pre-training and from scratch.
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
MEAN, DEVIATION = 0.45, 0.225  # of the pixels, as in the recipe
MASKINGS: dict[str, dict[str, Any]] = {
    # at ratios 0.5 and 0.75 the loss stays at 0.74 to 0.84
    "random units, 0.3": {"masking": "random", "mask_ratio": 0.3},
    "the future, 0.5": {"masking": "future", "mask_ratio": 0.5},
}
RECIPES = ((1e-3, 1.0), (1e-3, 0.6), (2e-3, 0.6), (4e-3, 0.6))  # lr, layer decay
Videos = tuple[Tensor, Tensor]
"""All frames, uint8 [N, 24, 3, H, W], and labels [N]."""


def read_videos(path: str) -> Videos:
    """Read all frames and labels of a list."""
    records = read_manifest(path).records
    frames = []
    for item in records:
        with hv.open_video(item.path) as video:
            frames.append(torch.from_numpy(video.frames(range(24))))
    labels = [item.label for item in records]
    return torch.stack(frames).movedim(-1, 2).contiguous(), torch.tensor(labels)


def sample_clips(
    frames: Tensor, generator: random.Random | None, scale: tuple[float, float] = (0.7, 1.0)
) -> Tensor:
    """Return random clips and crops [B, 3, 16, 32, 32], or central ones without a generator."""
    clips = []
    for video in frames:
        if generator is None:
            clips.append(resize(video[4:20], 36, 43)[..., 2:34, 6:38])
            continue
        start = generator.randint(0, 8)
        top, left, height, width = random_box(
            40, 48, scale=scale, ratio=(0.75, 4 / 3), generator=generator
        )
        clips.append(
            resize(video[start : start + 16, :, top : top + height, left : left + width], 32, 32)
        )
    return ((torch.stack(clips) - MEAN) / DEVIATION).transpose(1, 2)


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 [T, 3, H, W] to float [T, 3, height, width] in [0, 1]."""
    return F.interpolate(
        frames.float() / 255, (height, width), mode="bilinear", align_corners=False
    )


def optimize(
    model: nn.Module,
    rates: list[tuple[nn.Parameter, float]],
    steps: int,
    warmup: int,
    lr: float,
    loss: Any,
) -> None:
    """Train with AdamW, linear warm-up, a cosine and gradients clipped to norm 1.

    Args:
        model: Returned in eval mode.
        rates: Parameters and the factors of their learning rates.
        steps: Optimizer steps.
        warmup: Steps of warm-up.
        lr: Peak learning rate.
        loss: Step → loss.
    """
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


def shuffled_batches(count: int, seed: int) -> Any:
    """Return a function from step to the indices of its batch; an epoch has every video once."""
    generator = torch.Generator().manual_seed(seed)
    orders: dict[int, Tensor] = {}
    each = count // BATCH

    def batch(step: int) -> Tensor:
        order = orders.setdefault(step // each, torch.randperm(count, generator=generator))
        return order[step % each * BATCH :][:BATCH]

    return batch


def pretrain(
    masking: dict[str, Any], train: Videos, val: Videos, epochs: int
) -> tuple[dict[str, Tensor], float]:
    """Return weights and validation loss of a masked autoencoder."""
    torch.manual_seed(0)
    mae = MaeConfig(
        target_frames="all", decoder_embed_dim=64, decoder_depth=1, decoder_num_heads=2, **masking
    )
    model = hv.create_model("mae_hiera_micro_16x32", mae=mae)
    crops, batch = random.Random(0), shuffled_batches(len(train[0]), 0)
    each = len(train[0]) // BATCH

    def loss(step: int) -> Tensor:
        return model(sample_clips(train[0][batch(step)], crops, (0.5, 1.0))).loss

    optimize(model, [(p, 1.0) for p in model.parameters()], epochs * each, each, 1e-3, loss)
    with torch.no_grad():
        losses = [model(sample_clips(part, None)).loss.item() for part in val[0].split(32)]
    return model.state_dict(), sum(losses) / len(losses)


def classifier(weights: dict[str, Tensor]) -> nn.Module:
    """Return a micro Hiera initialised with the encoder in `weights`."""
    torch.manual_seed(0)
    model = hv.create_model("hiera_micro_16x32", num_classes=CLASSES)
    names = model.state_dict().keys() & weights.keys()
    model.load_state_dict({name: weights[name] for name in names}, strict=False)
    return model


def fine_tune(
    model: Any, train: Videos, val: Videos, epochs: int, lr: float, decay: float
) -> float:
    """Fine-tune and return top-1 on `val` in percent."""
    frames, labels = train
    crops, batch, each = random.Random(0), shuffled_batches(len(labels), 0), len(labels) // BATCH
    rates = [
        (p, decay ** (model.num_layers - model.layer_id(name)))
        for name, p in model.named_parameters()
    ]

    def loss(step: int) -> Tensor:
        rows = batch(step)
        return F.cross_entropy(model(sample_clips(frames[rows], crops)), labels[rows])

    optimize(model, rates, epochs * each, max(1, epochs * each // 5), lr, loss)
    with torch.no_grad():
        predicted = [model(sample_clips(part, None)).argmax(1) for part in val[0].split(32)]
    return round((torch.cat(predicted) == val[1]).float().mean().item() * 100, 1)


@torch.no_grad()
def probe(model: Any, train: Videos, val: Videos) -> float:
    """Return top-1 on `val` in percent of a ridge regression on the third stage's spatial means."""
    features = []
    for frames, _ in (train, val):
        maps = [
            model.eval().forward_intermediates(sample_clips(part, None))[2].mean((2, 3)).flatten(1)
            for part in frames.split(32)
        ]
        features.append(torch.cat(maps))
    mean, deviation = features[0].mean(0), features[0].std(0) + 1e-6
    known, held_out = ((part - mean) / deviation for part in features)
    targets = F.one_hot(train[1], CLASSES) - 1 / CLASSES
    solution = torch.linalg.solve(
        known.T @ known + 100 * torch.eye(known.shape[1]), known.T @ targets
    )
    return round(((held_out @ solution).argmax(1) == val[1]).float().mean().item() * 100, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", default="data/motion_hard", help="the motion set's harder variant"
    )
    parser.add_argument("--passes", type=int, default=12, help="epochs of pre-training")
    parser.add_argument("--budget", type=int, default=2, help="epochs of fine-tuning")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train, val = (read_videos(f"{arguments.data}/{split}.csv") for split in ("train", "val"))
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
        "what": "motion set, harder variant, seed 0, in memory, one centre view: held-out loss of "
        "masked pre-training; top-1 of a ridge regression on frozen features; top-1 after "
        f"{arguments.budget} epochs of fine-tuning",
        "command": " ".join(["python", *sys.argv]),
        "rows": rows,
    }
    print(record("pretraining_why", result))


if __name__ == "__main__":
    main()
