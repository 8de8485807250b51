"""The `average` command: one model whose weights are the mean of several checkpoints'."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from hiera_video.config.load import load_config
from hiera_video.config.schema import Config
from hiera_video.errors import CheckpointError
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import HieraEncoder
from hiera_video.models.weights.load import Weights, from_pretrained, load_pretrained, read_weights
from hiera_video.models.weights.save import save_pretrained
from hiera_video.workflows.build import make_model
from hiera_video.workflows.saved_settings import settings_to_save

logger = logging.getLogger(__name__)


def average(sources: Sequence[str], output: Path, *, model: str | None = None) -> None:
    """Write the mean of several checkpoints' weights as a folder that `load` reads.

    Args:
        sources: Runs, checkpoints, folders or files, see `read_weights`; two or more.
        output: Folder to write, see `save_pretrained`.
        model: Name of the model; None: the one that the first source describes.

    Raises:
        CheckpointError: A source cannot be read, does not describe its model, or is of another
            model or other classes than the first.
    """
    first = read_weights(sources[0], model or "")
    network = _make_network(first, model)
    sums = {name: value.double() for name, value in first.state.items()}
    for source in sources[1:]:
        weights = read_weights(source, model or "")
        _require_alike(first, weights)
        for name, value in weights.state.items():
            sums[name] += value.double()
    state = {
        name: (value / len(sources)).to(first.state[name].dtype) for name, value in sums.items()
    }
    # the list of a masked pre-training may name classes; its model has none
    names = None if first.num_classes is None else first.class_names
    mean = Weights(source=f"mean of {len(sources)} checkpoints", state=state, class_names=names)
    load_pretrained(network, mean, name=model or "")
    config = _run_config(Path(first.source))
    save_pretrained(
        network,
        output,
        class_names=names,
        multi_label=first.multi_label,
        settings=settings_to_save(config) if config else first.extras.get("settings"),
    )


def last_checkpoints(run: Path, count: int) -> list[str]:
    """Return the `count` newest checkpoints of a run, oldest first.

    Raises:
        CheckpointError: The run has fewer.
    """
    found = sorted(path for path in (run / "checkpoints").glob("step_*") if path.is_dir())
    if len(found) < count:
        raise CheckpointError(
            f"--run {run}: has {len(found)} checkpoints, --last {count} needs {count}; lower it, "
            f"or train with train.keep={count}"
        )
    return [str(path) for path in found[-count:]]


def _make_network(weights: Weights, model: str | None) -> HieraEncoder:
    """Return a model for `weights`, newly initialised."""
    if model is not None:
        return create_model(model, num_classes=weights.num_classes)
    folder = Path(weights.source)
    config = _run_config(folder)
    if config is not None:
        network = make_model(config, weights.num_classes, pretrained=None)
        assert isinstance(network, HieraEncoder)
        return network
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{weights.source}: does not describe its model; name it with --model, such as "
            "hiera_base_16x224"
        )
    return from_pretrained(folder)


def _run_config(folder: Path) -> Config | None:
    """Return the configuration of the run that a folder is, or is a checkpoint of."""
    resolved = folder.resolve()
    runs = (resolved, *(resolved.parents[1:2] if resolved.parent.name == "checkpoints" else ()))
    found = next((run / "config.yaml" for run in runs if (run / "config.yaml").is_file()), None)
    return load_config(found) if found else None


def _require_alike(first: Weights, other: Weights) -> None:
    def shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
        return {name: value.shape for name, value in state.items()}

    own, others = shapes(dict(first.state)), shapes(dict(other.state))
    if own != others:
        name = next(name for name in {**own, **others} if own.get(name) != others.get(name))
        found = [list(size) if (size := side.get(name)) else "missing" for side in (others, own)]
        raise CheckpointError(
            f"{other.source}: {name} is {found[0]}, in {first.source} {found[1]}; average "
            "checkpoints of one model"
        )
    if first.num_classes is not None and first.class_names != other.class_names:
        raise CheckpointError(
            f"{other.source}: has other class names than {first.source}; average checkpoints of "
            "the same classes in the same order"
        )
