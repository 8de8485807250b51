"""Configuration of `finetune`: what the model starts from, the recipe, and the user's keys.

No torch, so that a mistake in a key is reported at once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from hiera_video.config.load import load_config, run_config_file
from hiera_video.config.schema import Config
from hiera_video.models.registry import config_for
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.checks import require

Keys = Mapping[str, Any]
"""Section → key → value, or the value of a key without a section."""

OWN = {
    "data.train": "the videos are named first",
    "data.val": "use --val LIST",
    "data.test": "use --test LIST",
    "data.root": "use --root DIR",
    "data.val_root": "use --root DIR",
    "data.test_root": "use --root DIR",
    "data.split": "the videos are divided anyway",
    "out_dir": "use output=DIR",
    "model.name": "use --model NAME or --run DIR",
    "model.pretrained": "use --checkpoint WEIGHTS or --run DIR",
    "train.task": "finetune trains a classifier",
}
"""Keys that the command sets itself, and what to give instead."""
FROM_RUN = ("decoder", "frame_template", "frame_first", "frame_fps", "follow_links")
"""Keys of `data` that hold for other videos of the same kind."""


def start_keys(run: str | None, model: str | None, checkpoint: str | None) -> dict[str, Any]:
    """Return the keys that follow from the weights: model, clip and normalisation.

    Args:
        run: Run whose weights the model starts from, such as one of masked pre-training.
        model: Name of a model, otherwise.
        checkpoint: `best` or `last` of the run, or weights of the model; `none`: from scratch.
    """
    if run is None:
        name = str(model)
        frames = config_for(name).input_size[0]
        # the micro model's clips have 16 frames in a row
        steps = {"frame_stride": 1, "target_fps": None} if "micro" in name else {}
        return {
            "model": {"name": name, "pretrained": checkpoint},
            "clip": {"num_frames": frames, **steps},
        }
    config = load_config(run_config_file(run))
    folder = Path(run, "checkpoints", checkpoint) if checkpoint else Path(run)
    require(folder.is_dir(), f"--checkpoint {checkpoint}: {folder.parent} has none; leave it out")
    name = config.model.name.removeprefix("mae_")
    size = list(config.model.input_size) if config.model.input_size else None
    keys: dict[str, Any] = {
        "model": {"name": name, "input_size": size, "pretrained": str(folder)},
        "clip": {**asdict(config.clip), "repeats": 1},
        "augment": {name: list(getattr(config.augment, name)) for name in ("mean", "std")},
        "data": {name: getattr(config.data, name) for name in FROM_RUN},
    }
    if config.train.task == "classify":
        keys["test"] = {"clips": config.test.clips, "crops": config.test.crops}
    elif config.clip.sampling == "segments":  # the default of the views is for other clips
        keys["test"] = {"clips": 1}
    return keys


def check_keys(keys: Keys, overrides: Sequence[str]) -> Config:
    """Return a preliminary configuration, after checking the user's keys.

    Raises:
        ConfigError: A key is unknown, invalid, or one that the command sets itself.
    """
    for text in overrides:
        key, _, value = text.partition("=")
        require(key not in OWN, f"{key}={value}: is chosen by finetune; {OWN.get(key)}")
    with tempfile.TemporaryDirectory() as folder:
        return load_keys(Path(folder, "recipe.yaml"), keys, overrides)


def merge_keys(*layers: Keys) -> dict[str, Any]:
    """Return the keys of all layers; later ones override earlier ones."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for section, values in layer.items():
            if isinstance(values, Mapping):
                merged[section] = {**merged.get(section, {}), **values}
            else:
                merged[section] = values
    return merged


def load_keys(file: Path, keys: Keys, overrides: Sequence[str]) -> Config:
    """Write the keys as a configuration file, and load it with the user's keys on top."""
    text = yaml.safe_dump(dict(keys), sort_keys=False, default_flow_style=None, allow_unicode=True)
    write_atomic(file, text)
    return load_config(file, overrides)
