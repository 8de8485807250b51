"""A finished run, or published weights, as an object: `hv.load("runs/x")`, `hv.predict("runs/x", "clip.mp4")`."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models._meta import _KINETICS400_CATEGORIES

from hiera_video.config.load import load_config
from hiera_video.config.schema import Config
from hiera_video.data.dataset import TestViews, UnreadableVideo
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import CheckpointError, ConfigError, DecodeError
from hiera_video.eval.class_names import names_of
from hiera_video.eval.forward import compute_logits
from hiera_video.models.registry import ModelConfig, config_for
from hiera_video.models.weights.load import checkpoint_of, load_pretrained, read_weights
from hiera_video.workflows.build import make_model, make_views

logger = logging.getLogger(__name__)


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
    """What the run was trained with; for published weights, how they are tested."""
    multi_label: bool = False
    """Several labels a video: each class has a probability of its own."""


@dataclass(frozen=True)
class Prediction:
    """One answer of `predict`."""

    label: str
    probability: float
    clip_seconds: tuple[tuple[float, float], ...]
    """Start and end of each clip that the model saw."""


def load(
    run: str | Path, which: Literal["best", "last"] | None = None, *, model: str | None = None
) -> LoadedRun:
    """Load the run in folder `run`, by default the checkpoint that `checkpoint_of` chooses.

    model: `run` is no run but weights of the model of that name (whatever `read_weights` takes), such as the published
    `hv.load("mae_k400_ft_k400", model="hiera_base_16x224")`; they see videos as in the paper's test on Kinetics. Raises
    `CheckpointError` where there is no such checkpoint, or a damaged one; `ConfigError` for weights without a classifier."""
    if model is not None:
        return _load_weights(model, str(run))
    checkpoint = checkpoint_of(Path(run), which)
    config = load_config(Path(run) / "config.yaml")
    try:
        meta = json.loads((checkpoint / "meta.json").read_text())
        num_classes, class_names = meta["model"]["num_classes"], meta["class_names"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        other = "best" if checkpoint.name == "last" else "last"
        raise CheckpointError(
            f"{checkpoint}: its meta.json is damaged ({error}); load the run's {other}"
        ) from error
    return LoadedRun(
        model=make_model(config, num_classes, pretrained=str(checkpoint)).eval(),
        transform=_transform_of(config),
        class_names=tuple(class_names) if class_names else None,
        config=config,
        multi_label=bool(meta.get("multi_label")),
    )


def _load_weights(name: str, source: str) -> LoadedRun:
    weights = read_weights(source, name)
    if weights.num_classes is None:
        raise ConfigError(
            f"{source}: has no classifier's head, and so no classes to answer with; fine-tune from it first"
        )
    size = weights.config.get("input_size")
    section = ModelConfig(
        name=name, num_classes=weights.num_classes, input_size=tuple(size) if size else None
    )
    frames = config_for(name, input_size=section.input_size).input_size[0]
    config = Config(model=section, clip=ClipConfig(num_frames=frames))
    network = make_model(config, weights.num_classes, pretrained=None)
    load_pretrained(network, weights, name=name)  # type: ignore[arg-type]
    names = weights.class_names
    if names is None and weights.num_classes == len(_KINETICS400_CATEGORIES):
        logger.info("%s: its 400 classes have no names; they are taken for Kinetics-400's", source)
        names = tuple(_KINETICS400_CATEGORIES)
    return LoadedRun(model=network.eval(), transform=_transform_of(config), class_names=names, config=config,
                     multi_label=bool(weights.multi_label))  # fmt: skip


def _transform_of(config: Config) -> EvalTransform:
    return EvalTransform(
        config.input_size[1], config.test.crops, config.augment.mean, config.augment.std
    )


@torch.inference_mode()
def predict(run: LoadedRun | str | Path, path: str | Path, topk: int = 5) -> list[Prediction]:
    """The `topk` likeliest classes of the video at `path`, from the views of the run's test (`test.clips` × `test.crops`).

    run: its folder, which is loaded each time (onto a GPU where there is one), or what `load` made of it. Raises
    `DecodeError` where the video cannot be read.
    """
    if not isinstance(run, LoadedRun | str | Path):
        raise ConfigError(
            f"run is a {type(run).__name__}; give the run's folder, or what hv.load made of it"
        )
    if not isinstance(run, LoadedRun):
        run = load(run)
        run.model.to("cuda" if torch.cuda.is_available() else "cpu")
    record = Record(path=str(path), label=None, row=0)
    manifest = Manifest(records=(record,), class_names=None, multi_label=False, source=str(path))
    views: TestViews = make_views(
        run.config, manifest, clips=run.config.test.clips, crops=run.config.test.crops
    )
    video = views[0]
    if isinstance(video, UnreadableVideo):
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
    return named_answers(
        run, compute_logits(run.model, views.to(device), run.config.test.precision), topk
    )


def named_answers(run: LoadedRun, logits: Tensor, topk: int) -> tuple[tuple[str, float], ...]:
    """The `topk` likeliest classes of a video's views [V, K] with their names (numbers where it has none)."""
    shares = logits.float().sigmoid() if run.multi_label else logits.float().softmax(dim=1)
    probabilities = shares.mean(dim=0).cpu()
    values, classes = probabilities.topk(min(topk, len(probabilities)))
    names = names_of(run.class_names, len(probabilities))
    return tuple((names[k], value) for value, k in zip(values.tolist(), classes.tolist()))
