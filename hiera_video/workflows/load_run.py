"""Inference with a trained run or published weights: `hv.load` and `hv.predict`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from hiera_video.config.load import load_config, override_config
from hiera_video.config.schema import Config
from hiera_video.data.dataset import UnreadableVideo, VideoViews
from hiera_video.data.loading.loader import test_loader
from hiera_video.data.manifest.class_names import kinetics400_names
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import CheckpointError, ConfigError, DecodeError
from hiera_video.eval.class_names import output_names
from hiera_video.eval.forward import compute_logits
from hiera_video.models.registry import is_mae
from hiera_video.models.weights.link import read_through_link
from hiera_video.models.weights.load import (
    find_checkpoint,
    load_pretrained,
    read_weights,
)
from hiera_video.models.weights.published import checkpoint_tags
from hiera_video.models.weights.save import save_pretrained
from hiera_video.runtime.precision import AUTOCAST_DTYPES, resolve_precision
from hiera_video.utils.checks import require
from hiera_video.video.arguments import describe, video_path
from hiera_video.video.options import ShardVideo
from hiera_video.workflows.build import make_model, make_views
from hiera_video.workflows.predict import run_of_checkpoint
from hiera_video.workflows.run_meta import read_run_meta
from hiera_video.workflows.saved_settings import config_of_weights, settings_to_save

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """A trained model with its test transform and class names, as returned by `load`."""

    model: nn.Module
    """In eval mode, on the CPU. Maps clips [B, 3, T, H, W] to logits [B, K]."""
    transform: EvalTransform
    """The test transform: uint8 frames [T, H, W, 3] → float32 views [crops, 3, T, size, size]."""
    class_names: tuple[str, ...] | None
    """Name of each class in index order, or None if the training set had no names."""
    config: Config
    """Configuration of the run; for weights, the test settings saved with them, or the paper's."""
    multi_label: bool = False
    """True if a video may have several labels; the probabilities then do not sum to 1."""
    source: str | None = None
    """Folder, file or tag that `load` read; None for a run that was not loaded."""

    def save(self, folder: str | Path) -> Path:
        """Save the model with its classes and test settings, as a folder that `load` reads.

        Raises:
            CheckpointError: The folder cannot be written.
            ConfigError: It is a run of action detection, whose model scores boxes.
        """
        if self.config.train.task == "detect":
            raise ConfigError(
                f"{self.config.out_dir}: a run of action detection cannot be saved without its "
                "boxes; copy the folder of the run, hv.load takes it anywhere"
            )
        return save_pretrained(
            self.model,  # type: ignore[arg-type]
            folder,
            class_names=self.class_names,
            multi_label=self.multi_label,
            settings=settings_to_save(self.config),
        )


@dataclass(frozen=True)
class Prediction:
    """One of the most likely classes of a video, as returned by `predict`."""

    label: str
    """Name of the class, or its index as text if it has no name."""
    probability: float
    """Mean over the views of the video, between 0 and 1."""
    clip_seconds: tuple[tuple[float, float], ...]
    """(start, end) of each clip that the model saw, in seconds: the presentation time of the clip's
    first frame, and the end of its last. Equal for all predictions of a video."""


def load(
    run: str | Path, which: Literal["best", "last"] | None = None, *, model: str | None = None
) -> LoadedRun:
    """Load a trained run, or weights, for inference.

    Example::

        run = hv.load("runs/x")
        saved = hv.load("my_model")  # written by run.save or save_pretrained
        published = hv.load("mae_k400_ft_k400", model="hiera_base_16x224")

    Args:
        run: Folder of a run (`out_dir`) or of one of its checkpoints, or a source of weights: a
            folder with `config.json` (see `from_pretrained`), such a folder on the hub
            (`hf-hub:owner/name`) or a full tag (`hiera_base_16x224.mae_k400_ft_k400`); with
            `model`, also a file or a tag alone.
        which: Checkpoint of the run. By default the best one, or the last if the run has never been
            validated.
        model: Name of the model that the weights are for, by default the one that `config.json`
            describes. Weights are tested with the settings that were saved with them, or else by
            the paper's Kinetics protocol (5×3 views).

    Returns:
        The model in eval mode on the CPU, with its test transform and class names.

    Raises:
        CheckpointError: The checkpoint does not exist, is damaged, or does not fit the model.
        ConfigError: The weights have no classification head, `model` is unknown, or an argument is
            none of these.
    """
    _check_arguments(run, model)
    if model is not None or _is_weights(run):
        return _load_weights(model, str(run))
    folder = run_of_checkpoint(run)
    if folder is None:
        folder, checkpoint = Path(run), find_checkpoint(_require_run(run), which)
    else:
        checkpoint = Path(run)
        require(
            which in (None, checkpoint.name),
            f"which={which!r}: {run} is a checkpoint already; leave which out, or name {folder}",
        )
    config = load_config(folder / "config.yaml")
    loaded = read_through_link(
        checkpoint, lambda found: _load_checkpoint(found, checkpoint, config)
    )
    return replace(loaded, source=str(run if which is None else checkpoint))


def _check_arguments(run: object, model: object) -> None:
    require(
        isinstance(run, str | Path) and str(run) != "",
        f"run is {describe(run)}; give the folder of a run or of a saved model, "
        "hf-hub:owner/name, or weights with model=",
    )
    require(
        model is None or isinstance(model, str),
        f"model is {describe(model)}; give a name of hv.list_models()",
    )


def _require_run(run: str | Path) -> Path:
    """Return the folder of a run.

    Raises:
        CheckpointError: It is a file, or a folder of something else.
    """
    path = Path(run)
    if path.is_file():
        raise CheckpointError(
            f"{run}: is a file, and a run is a folder; weights in a file need the name of their "
            f"model: hv.load({str(run)!r}, model='hiera_base_16x224')"
        )
    has_parts = (path / "config.yaml").exists() or (path / "checkpoints").exists()
    if path.is_dir() and not has_parts:
        raise CheckpointError(
            f"{run}: is no run (no config.yaml) and no saved model (no config.json); name the "
            "folder that has one of them"
        )
    return path


def to_loaded_run(run: LoadedRun | str | Path) -> LoadedRun:
    """Return a loaded run as it is, and another one loaded onto the GPU if there is one.

    Raises:
        ConfigError: `run` is neither.
        CheckpointError: As for `load`.
    """
    if isinstance(run, LoadedRun):
        return run
    require(
        isinstance(run, str | Path),
        f"run is {describe(run)}; give the folder of a run, or the result of hv.load",
    )
    loaded = load(run)
    loaded.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return loaded


def override_run(run: LoadedRun, overrides: Sequence[str]) -> LoadedRun:
    """Return a run with `key=value` overrides of its configuration, and the transform for them."""
    if not overrides:
        return run
    config = override_config(run.config, overrides)
    return replace(run, config=config, transform=_test_transform(config))


def _load_checkpoint(folder: Path, checkpoint: Path, config: Config) -> LoadedRun:
    meta = read_run_meta(folder, checkpoint)
    return LoadedRun(
        model=make_model(config, meta.num_classes, pretrained=str(folder)).eval(),
        transform=_test_transform(config),
        class_names=meta.class_names,
        config=config,
        multi_label=meta.multi_label,
    )


def _is_weights(source: str | Path) -> bool:
    """Return True for weights from the hub, a full tag, or a folder of weights that is no run."""
    text, folder = str(source), Path(source)
    is_run = (folder / "config.yaml").exists() or (folder / "checkpoints").exists()
    is_saved = (folder / "config.json").is_file() and not is_run
    return text.startswith("hf-hub:") or text in checkpoint_tags() or is_saved


def _load_weights(name: str | None, source: str) -> LoadedRun:
    weights = read_weights(source, name or "")
    config = config_of_weights(weights, name)
    num_classes, class_names = weights.num_classes, weights.class_names
    if num_classes is None and not is_mae(config.model.name):
        raise ConfigError(
            f"{source}: has no classification head, so there are no classes to predict; fine-tune "
            "from it first"
        )
    network = make_model(config, num_classes, pretrained=None)
    load_pretrained(network, weights, name=config.model.name)  # type: ignore[arg-type]
    if class_names is None and num_classes == len(kinetics400_names()):
        logger.info("%s: its 400 classes have no names; assuming Kinetics-400", source)
        class_names = kinetics400_names()
    return LoadedRun(
        model=network.eval(),
        transform=_test_transform(config),
        class_names=class_names,
        config=config,
        multi_label=bool(weights.multi_label),
        source=source,
    )


def _test_transform(config: Config) -> EvalTransform:
    return EvalTransform(
        config.input_size[1], config.test.crops, config.augment.mean, config.augment.std
    )


@torch.inference_mode()
def predict(
    run: LoadedRun | str | Path, video: str | Path | Record | ShardVideo, topk: int = 5
) -> list[Prediction]:
    """Return the most likely classes of a video.

    The probabilities are averaged over the views of the run's test (`test.clips` × `test.crops`)
    and computed in `test.precision`, as in the test itself.

    Args:
        run: A run from `load`, whose model may be on any device; or the folder of a run, which is
            loaded on each call, onto the GPU if there is one.
        video: Video file, folder of frames if the run was trained on those, a record of a list,
            whose segment is then predicted, or a video in a shard.
        topk: Number of classes; all if there are fewer.

    Returns:
        The `topk` classes, most likely first.

    Raises:
        DecodeError: The video cannot be read.
        ConfigError: An argument is none of these, or it is a run of masked pre-training, which has
            no classes.
        CheckpointError: As for `load`.
    """
    record = as_record(video)
    is_count = isinstance(topk, Integral) and not isinstance(topk, bool) and topk > 0
    require(is_count, f"topk={describe(topk)}: must be an integer, 1 or more")
    run = to_loaded_run(run)
    manifest = Manifest(records=(record,), class_names=None, multi_label=False, source=record.path)
    test = run.config.test
    views = make_views(run.config, manifest, clips=test.clips, crops=test.crops)[0]
    return _classify(run, views, int(topk))


@torch.inference_mode()
def predict_videos(
    run: LoadedRun, videos: Sequence[str | Path | Record], topk: int = 5
) -> Iterator[list[Prediction] | DecodeError]:
    """Yield what `predict` returns for each video, or the error of an unreadable one.

    The videos are read in a worker process, which is killed if it spends more than
    `data.deadline_seconds` on one of them.
    """
    records = tuple(as_record(video, row) for row, video in enumerate(videos))
    manifest = Manifest(records=records, class_names=None, multi_label=False, source="predict")
    test = run.config.test
    views = make_views(run.config, manifest, clips=test.clips, crops=test.crops)
    views.quarantine = replace(views.quarantine, file=None)
    for video in test_loader(views, workers=1, rows=range(len(records))):
        try:
            yield _classify(run, video, topk)
        except DecodeError as error:
            yield error


def as_record(video: str | Path | Record | ShardVideo, row: int = 0) -> Record:
    """Return the record at `row` of a video: a path, a record of a list, or a video in a shard.

    Raises:
        ConfigError: It is none of these.
    """
    if isinstance(video, Record):
        return replace(video, row=row)
    if isinstance(video, ShardVideo):
        return Record(path=video.path, label=None, row=row, shard_video=video)
    path = video_path(video, "a record of a list, or a ShardVideo")
    return Record(path=path, label=None, row=row)


def _classify(run: LoadedRun, video: VideoViews | UnreadableVideo, topk: int) -> list[Prediction]:
    if isinstance(video, UnreadableVideo):
        raise DecodeError(video.message, reason=video.reason)
    return [
        Prediction(label, probability, video.clip_seconds)
        for label, probability in classify_views(run, video.views, topk)
    ]


def classify_views(run: LoadedRun, views: Tensor, topk: int) -> tuple[tuple[str, float], ...]:
    """Return (label, probability) of the `topk` most likely classes of a video.

    Args:
        run: Its model computes in `test.precision`, on the device where it is.
        views: [V, 3, T, S, S], normalised.
        topk: Number of classes.

    Raises:
        ConfigError: The model is a masked autoencoder, or its weights do not go with
            `test.precision`.
    """
    require_classes(run)
    require_dtype(run.model, run.config.test.precision)
    device = next(run.model.parameters()).device
    return top_classes(
        run, compute_logits(run.model, views.to(device), run.config.test.precision), topk
    )


def require_classes(run: LoadedRun) -> None:
    """Raise `ConfigError` if the model is no classifier of whole videos."""
    config = run.config
    if config.train.task == "pretrain":
        raise ConfigError(
            f"{config.model.name}: a run of masked pre-training has no classes to predict; "
            f"fine-tune from it first (model.pretrained={run.source or config.out_dir})"
        )
    if config.train.task == "detect":
        raise ConfigError(
            f"{config.out_dir}: a run of action detection scores boxes, not whole videos; use "
            "hv.detect, or hiera-video predict --boxes"
        )


def require_dtype(model: nn.Module, precision: str) -> None:
    """Raise `ConfigError` unless the weights are float32, or of the type of `precision`."""
    weight = next(model.parameters())
    computed = AUTOCAST_DTYPES.get(resolve_precision(precision, weight.device))
    if weight.dtype not in (torch.float32, computed):
        raise ConfigError(
            f"the model's weights are {str(weight.dtype).removeprefix('torch.')}, which do not go "
            f"with precision {precision}; call run.model.float(), and choose half precision by "
            "test.precision (features: by features.precision)"
        )


def top_classes(run: LoadedRun, logits: Tensor, topk: int) -> tuple[tuple[str, float], ...]:
    """Return (label, probability) of the `topk` most likely classes, given view logits [V, K]."""
    return name_top_classes(run, class_probabilities(run, logits), topk)


def class_probabilities(run: LoadedRun, logits: Tensor) -> Tensor:
    """Return the probability of each class [K], the mean over views with logits [V, K]."""
    logits = logits.float()
    views = logits.sigmoid() if run.multi_label else logits.softmax(dim=1)
    return views.mean(dim=0).cpu()


def name_top_classes(
    run: LoadedRun, probabilities: Tensor, topk: int
) -> tuple[tuple[str, float], ...]:
    """Return (label, probability) of the `topk` most likely of all classes [K]."""
    names = output_names(run.class_names, len(probabilities))
    values, classes = probabilities.topk(min(topk, len(probabilities)))
    return tuple((names[index], value) for value, index in zip(values.tolist(), classes.tolist()))
