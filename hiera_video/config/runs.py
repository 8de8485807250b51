"""A finished run as an object: `hv.load("runs/x")`, `hv.predict("runs/x", "clip.mp4")`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from hiera_video.config.build import make_model, make_views
from hiera_video.config.load import load_config
from hiera_video.config.schema import Config
from hiera_video.data.dataset import BrokenVideo, TestViews
from hiera_video.data.manifest import Manifest, Record
from hiera_video.data.transforms import EvalTransform
from hiera_video.errors import CheckpointError, ConfigError, DecodeError
from hiera_video.eval.class_names import names_of
from hiera_video.eval.forward import compute_logits


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """A trained model with what it needs to see and to speak."""

    model: nn.Module
    """In eval mode; clips [B, 3, T, H, W] → logits [B, K]."""
    transform: EvalTransform
    """uint8 frames [T, H, W, 3] → [crops, 3, T, size, size], as in the test."""
    class_names: tuple[str, ...] | None
    """Name of each class, in index order, where the training set had names."""
    config: Config
    """What the run was trained with."""
    multi_label: bool = False
    """Several labels a video: each class has a probability of its own."""


@dataclass(frozen=True)
class Prediction:
    """One answer of `predict`."""

    label: str
    probability: float
    clip_seconds: tuple[tuple[float, float], ...]
    """Start and end of each clip that the model saw."""


def load(run: str | Path, which: Literal["best", "last"] = "best") -> LoadedRun:
    """Load the run in folder `run`. Raises `CheckpointError` where it has no such checkpoint, or a damaged one."""
    folder = Path(run)
    checkpoint = folder / "checkpoints" / which
    if not (checkpoint / "meta.json").is_file():
        raise CheckpointError(
            f"{checkpoint}: no such checkpoint; `run` must be the out_dir of a run that has been saved, "
            "`which` best or last"
        )
    config = load_config(folder / "config.yaml")
    try:
        meta = json.loads((checkpoint / "meta.json").read_text())
        num_classes, class_names = meta["model"]["num_classes"], meta["class_names"]
    except (ValueError, KeyError, TypeError) as error:
        other = "last" if which == "best" else "best"
        raise CheckpointError(f"{checkpoint}: its meta.json is damaged ({error}); load the run's {other}") from error
    model = make_model(config, num_classes, pretrained=str(checkpoint)).eval()
    transform = EvalTransform(config.input_size[1], config.test.crops, config.augment.mean, config.augment.std)
    return LoadedRun(
        model=model,
        transform=transform,
        class_names=tuple(class_names) if class_names else None,
        config=config,
        multi_label=bool(meta.get("multi_label")),
    )


@torch.inference_mode()
def predict(run: LoadedRun | str | Path, path: str | Path, topk: int = 5) -> list[Prediction]:
    """The `topk` likeliest classes of the video at `path`, from the views of the run's test (`test.clips` × `test.crops`).

    Raises `DecodeError` where the video cannot be read.
    """
    if not isinstance(run, LoadedRun | str | Path):
        raise ConfigError(f"run is a {type(run).__name__}; give the run's folder, or what hv.load made of it")
    run = run if isinstance(run, LoadedRun) else load(run)
    record = Record(path=str(path), label=None, row=0)
    manifest = Manifest(records=(record,), class_names=None, multi_label=False, source=str(path))
    views: TestViews = make_views(run.config, manifest, clips=run.config.test.clips, crops=run.config.test.crops)
    video = views[0]
    if isinstance(video, BrokenVideo):
        raise DecodeError(video.message, reason=video.reason)
    answers = answers_for(run, video.views, topk)
    return [Prediction(label, value, video.clip_seconds) for label, value in answers]


def answers_for(run: LoadedRun, views: Tensor, topk: int) -> tuple[tuple[str, float], ...]:
    """`named_answers` of what the model says of a video's views [V, 3, T, S, S], computed as `test.precision` says. Raises
    `ConfigError` where it says nothing: a masked autoencoder."""
    if run.config.train.task == "pretrain":
        raise ConfigError(
            f"{run.config.model.name}: a run of masked pre-training has no classes to answer with; fine-tune from it first "
            f"(model.pretrained={run.config.out_dir})"
        )
    device = next(run.model.parameters()).device
    return named_answers(run, compute_logits(run.model, views.to(device), run.config.test.precision), topk)


def named_answers(run: LoadedRun, logits: Tensor, topk: int) -> tuple[tuple[str, float], ...]:
    """The `topk` likeliest classes of a video's views [V, K] with their names (numbers where it has none)."""
    shares = logits.float().sigmoid() if run.multi_label else logits.float().softmax(dim=1)
    probabilities = shares.mean(dim=0).cpu()
    values, classes = probabilities.topk(min(topk, len(probabilities)))
    names = names_of(run.class_names, len(probabilities))
    return tuple((names[k], value) for value, k in zip(values.tolist(), classes.tolist()))
