"""The `info` command: facts of this installation for a bug report, and tables of a model."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from hiera_video import __version__
from hiera_video.config.schema import Config
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.layout import stage_table
from hiera_video.models.macs import count_macs, count_parameters
from hiera_video.models.registry import MaeConfig
from hiera_video.models.step_memory import count_saved_bytes
from hiera_video.models.weights.convert import likely_size, width_and_depth
from hiera_video.models.weights.load import read_weights
from hiera_video.utils.extras import EXTRAS
from hiera_video.utils.text_files import DAMAGED_JSON, count_of
from hiera_video.video.versions import pyav_version

STATE_BYTES = 16
"""Bytes a parameter takes in float32 training with AdamW: weight, gradient and two moments."""


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """The model that `describe_model` describes."""

    name: str
    num_classes: int | None = None
    input_size: tuple[int, ...] | None = None
    mae: MaeConfig | None = None

    @classmethod
    def of(cls, config: Config, num_classes: int | None) -> ModelRequest:
        """Return the model of a configuration."""
        return cls(
            name=config.model.name,
            num_classes=num_classes,
            input_size=config.model.input_size,
            mae=config.mae if config.train.task == "pretrain" else None,
        )


def describe_model(request: ModelRequest) -> str:
    """Return the stage table of a model, its cost, and the memory of a training step."""
    with torch.device("meta"):  # no memory is taken, however large the model
        model = create_model(
            request.name,
            num_classes=request.num_classes,
            input_size=request.input_size,
            mae=request.mae,
        )
    config = model.config
    shape = (config.in_chans, *config.input_size)
    rows = [("stage", "blocks", "grid", "tokens", "channels", "heads", "attention")]
    for number, stage in enumerate(stage_table(config), 1):
        first = (
            "" if stage.first_attention == stage.attention else f", first {stage.first_attention}"
        )
        grid = "×".join(map(str, stage.grid))
        rows.append(
            (
                *(
                    str(number),
                    str(stage.last_block - stage.first_block + 1),
                    grid,
                    str(math.prod(stage.grid)),
                ),
                *(str(stage.dim), str(stage.heads), f"{stage.attention}{first}"),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    table = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows
    ]
    parameters = count_parameters(model)
    step = f"{STATE_BYTES * parameters / 1e9:.2f} GB for weights, gradients and AdamW"
    if isinstance(model, Hiera):
        saved = count_saved_bytes(model.train(), shape)
        step += f", about {saved / 1e9:.2f} GB of activations a clip"
    classes = count_of(config.num_classes, "class")
    head = classes if request.mae is None else "masked autoencoder"
    return "\n".join(
        [
            f"{request.name}: input {list(shape)}, {head}",
            *table,
            f"parameters     {parameters / 1e6:.2f} M",
            f"MACs           {count_macs(model, shape) / 1e9:.1f} G a clip",
            f"training step  {step}",
            "               (float32; bf16 takes less, model.checkpointing=true far less)",
        ]
    )


def describe_run(folder: Path, config: Config) -> tuple[str, int | None]:
    """Return the newest checkpoint of a run as a line, and its number of classes."""
    checkpoints = folder / "checkpoints"
    try:
        meta = json.loads((checkpoints / "last" / "meta.json").read_text())
        classes = meta["model"]["num_classes"]
        step = int(meta["step"])
    except DAMAGED_JSON:
        return f"{folder}: no intact checkpoint", config.model.num_classes
    best = (checkpoints / "best").resolve().name if (checkpoints / "best").exists() else "none"
    return f"{folder}: trained for {count_of(step, 'step')}, best checkpoint {best}", classes


def describe_weights(source: str) -> str:
    """Return the format and the model of a file of weights as a line.

    Raises:
        CheckpointError: If the file is damaged or has no weights.
    """
    weights = read_weights(source)
    container = "safetensors" if Path(source).suffix == ".safetensors" else "torch"
    state = weights.state
    if "patch_embed.proj.weight" not in state:
        return f"{source}: {container} file of {count_of(len(state), 'tensor')}, none of a Hiera"
    width, depth = width_and_depth(state)
    clips = "video" if state["patch_embed.proj.weight"].ndim == 5 else "images"
    head = "no head"
    if weights.num_classes is not None:
        head = f"head of {count_of(weights.num_classes, 'class')}"
    if "mask_token" in state:
        head = "masked autoencoder"
    return (
        f"{source}: {container} file with a model for {clips}, {width} channels and "
        f"{count_of(depth, 'block')}{likely_size(state)}, {head}; load it with "
        f"hv.create_model(NAME, pretrained={source!r}) or model.pretrained={source}"
    )


def describe_installation() -> str:
    """Return versions, devices, decoders and extras, for a bug report."""
    lines = [
        ("hiera-video", f"{__version__} in {Path(__file__).resolve().parents[1]}"),
        ("python", platform.python_version()),
        ("machine", f"{platform.platform()}, {os.cpu_count()} cores"),
        ("torch", f"{torch.__version__}, CUDA {torch.version.cuda or 'not built in'}"),
        *_devices(),
        *((name, _version(name)) for name in ("torchvision", "numpy", "omegaconf", "safetensors")),
        ("pyav", pyav_version()),
        *((name, _version(name)) for name in ("decord", "torchcodec")),
        *(
            (f"[{extra}]", ", ".join(f"{name} {_version(name)}" for name in modules))
            for extra, modules in EXTRAS.items()
            if extra not in ("decord", "torchcodec")
        ),
    ]
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join(f"{name:{width}}{value}" for name, value in lines)


def _devices() -> list[tuple[str, str]]:
    if not torch.cuda.is_available():
        return [("device", "cpu")]
    return [
        (
            f"cuda:{index}",
            f"{torch.cuda.get_device_name(index)}, "
            f"{torch.cuda.get_device_properties(index).total_memory / 1e9:.0f} GB",
        )
        for index in range(torch.cuda.device_count())
    ]


def _version(module: str) -> str:
    """Return the version of the package that has a module."""
    if importlib.util.find_spec(module) is None:
        return "not installed"
    packages = importlib.metadata.packages_distributions().get(module, [module])
    try:
        return importlib.metadata.version(packages[0])
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
