"""Extract features of videos: `hiera-video extract` and `hv.extract_features`.

Everything that needs no torch is checked before torch is imported.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiera_video.config.load import load_config, override_config
from hiera_video.config.schema import Config
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import VIDEO_SUFFIXES, Manifest, Record
from hiera_video.errors import ConfigError
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.windows import check_windows
from hiera_video.utils.checks import require
from hiera_video.utils.text_files import count_of
from hiera_video.video.arguments import describe
from hiera_video.video.options import FrameFolder, ShardVideo
from hiera_video.workflows.extraction_plan import make_encoder, make_plan, order_like_store
from hiera_video.workflows.predict import find_videos, run_of_checkpoint

if TYPE_CHECKING:
    from hiera_video.features.engines import ExtractionStats
    from hiera_video.features.shards import ExtractionPlan
    from hiera_video.features.store import FeatureStore
    from hiera_video.workflows.load_run import LoadedRun

logger = logging.getLogger(__name__)
DONE, TOO_MANY_UNREADABLE = 0, 3
WEIGHT_SUFFIXES = (".pt", ".pth", ".pyth", ".ckpt", ".bin", ".safetensors")
"""Suffixes of files that hold weights."""


def extract_features(
    run: LoadedRun | str | Path | Config,
    input: str | Path | Record | ShardVideo | Manifest | Iterable[str | Path | Record | ShardVideo],
    output: str | Path,
    *,
    workers: int | None = None,
    **features: Any,
) -> FeatureStore:
    """Extract features of videos into a folder and return them as a store.

    Call it again with the same arguments after an interruption: it resumes, and a finished
    extraction returns at once. An unreadable video has a row with its reason in the index.

    Args:
        run: A run from `hv.load`, whose model stays on its device; the folder of a run, or of a
            saved model; a config file with `model.pretrained`; or a `Config`.
        input: List of videos, folder, glob or video; a manifest; or paths and records, in the order
            of the store.
        output: Folder of the feature store.
        workers: Processes that decode videos; None: `data.workers` of the configuration.
        features: Keys of the `features` section, such as `window=2.0` (seconds) or
            `pooling="temporal"`.

    Returns:
        The store, with all videos unless other processes still compute some.

    Raises:
        ConfigError: An argument or a config value is invalid, or `input` has no videos.
        ManifestError: The list of videos is invalid.
        CheckpointError: The weights cannot be loaded.
        FeatureError: `output` has features of other settings, or cannot be written.

    >>> store = hv.extract_features("runs/x", "videos/", "features/", window=2)  # doctest: +SKIP
    >>> store["videos/a.mp4"].features.shape                                     # doctest: +SKIP
    torch.Size([5, 768])
    """
    from hiera_video.features.store import FeatureStore
    from hiera_video.workflows.load_run import LoadedRun, require_dtype

    model = run.model if isinstance(run, LoadedRun) else None
    if isinstance(run, LoadedRun):
        config = replace(run.config, model=replace(run.config.model, pretrained=run.source))
    elif isinstance(run, Config):
        config = run
    else:
        require(
            isinstance(run, str | Path),
            f"run is {describe(run)}; give a folder, a config file, a Config or the result of "
            "hv.load",
        )
        config = resolve_config(run)
    if not isinstance(output, str | Path):
        raise ConfigError(f"output is {describe(output)}; name the folder for the features")
    config = _override_features(config, features)
    if model is not None:
        require_dtype(model, config.features.precision)
    config, manifest = _locate_videos(config, input)
    section = replace(config.features, output=os.fspath(output))
    data = config.data if workers is None else replace(config.data, workers=workers)
    run_extraction(replace(config, features=section, data=data), manifest, model=model)
    return FeatureStore(output)


def _override_features(config: Config, features: Mapping[str, Any]) -> Config:
    """Return the configuration with values of the `features` section, checked as in a file."""
    known = FeaturesConfig.__dataclass_fields__
    if unknown := sorted(set(features) - set(known)):
        raise ConfigError(f"unknown features key {unknown[0]!r}; choose from {', '.join(known)}")
    if isinstance(stage := features.get("stages"), int):
        raise ConfigError(f"features.stages={stage}: must be a list of stages, such as [{stage}]")
    overrides = []
    for key, value in features.items():
        try:
            overrides.append(f"features.{key}={json.dumps(value, default=_plain)}")
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"features.{key} is {describe(value)}, which no configuration can hold; give a "
                "number, a text or a list"
            ) from error
    return override_config(config, overrides)


def _plain(value: Any) -> Any:
    """Return a value of numpy, a range or another iterable as `json` writes it."""
    return value.tolist() if hasattr(value, "tolist") else list(value)


def _locate_videos(config: Config, input: Any) -> tuple[Config, Manifest]:
    """Return the configuration with `features.input`, and the videos.

    The key is unset for a list of the caller's own, whose order is kept.
    """
    from hiera_video.workflows.load_run import as_record

    if isinstance(input, str | Path):
        section = replace(config.features, input=os.fspath(input))
        config = replace(config, features=section)
        return config, read_input(config)
    if isinstance(input, Manifest):
        section = replace(config.features, input=input.source)
        numbered = tuple(as_record(record, row) for row, record in enumerate(input.records))
        return replace(config, features=section), replace(input, records=numbered)
    videos = [input] if isinstance(input, Record | ShardVideo) else input
    if isinstance(videos, bytes) or not isinstance(videos, Iterable):
        raise ConfigError(
            f"input is {describe(input)}; give a list of videos, a folder, a glob, a video, a "
            "manifest, or a list of paths and records"
        )
    records = []
    for row, video in enumerate(videos):
        record = as_record(video, row)
        if not isinstance(video, Record | ShardVideo):  # as of folders
            record = replace(record, path=os.path.abspath(record.path))  # noqa: PTH100
        records.append(record)
    if not records:
        raise ConfigError("input is empty; give one or more videos")
    section = replace(config.features, input=None)
    manifest = Manifest(records=tuple(records), class_names=None, multi_label=False, source="input")
    return replace(config, features=section), manifest


def resolve_config(run: str | Path, overrides: tuple[str, ...] = ()) -> Config:
    """Load the configuration of a run, with its best checkpoint, or of a config file.

    The folder of a checkpoint, a folder of `save_pretrained` or `hf-hub:owner/name` also names a
    configuration; only the last two need torch.

    Raises:
        ConfigError: `run` is none of these, or a value is invalid.
        CheckpointError: The weights of a saved model cannot be read.
    """
    path, text = Path(run), str(run)
    is_hub = text.startswith("hf-hub:")
    if path.suffix.lower() in WEIGHT_SUFFIXES and path.is_file():
        raise ConfigError(
            f"{path}: is a file of weights, which names no model; give a config file with "
            f"model.pretrained={path}, or in Python hv.load({text!r}, model=…)"
        )
    if not path.is_dir() and not is_hub:
        return load_config(path, overrides)
    folder = run_of_checkpoint(path) or path
    if (folder / "config.yaml").is_file():
        return load_config(folder / "config.yaml", [f"model.pretrained={path}", *overrides])
    if not is_hub and not (path / "config.json").is_file():
        raise ConfigError(
            f"{path}: has no config.yaml; give the out_dir of a run, or a folder that run.save or "
            "hv.save_pretrained wrote"
        )
    from hiera_video.models.weights.load import read_weights
    from hiera_video.workflows.saved_settings import config_of_weights

    config = config_of_weights(read_weights(run))
    config = replace(config, model=replace(config.model, pretrained=text))
    return override_config(config, overrides)


def read_input(config: Config) -> Manifest:
    """Return the videos of `features.input`; labels are optional.

    Raises:
        ConfigError: It is not set, or has no videos.
        ManifestError: The list is invalid.
    """
    source = config.features.input
    if source is None:
        raise ConfigError(
            "input= is not set; name a list of videos, a folder, a glob such as 'videos/*.mp4', or "
            "a video"
        )
    path = Path(source)
    if any(sign in source for sign in "*?[") and not path.exists():
        frames = isinstance(config.data.backend, FrameFolder)  # these videos are folders
        names = glob.glob(source, recursive=True)  # noqa: PTH207 (absolute and relative patterns)
        videos = sorted(name for name in names if Path(name).is_dir() == frames)
        if not videos:
            kind = "folder of frames" if frames else "file"
            raise ConfigError(
                f"input={source}: matches no {kind}; quote the glob, and check it with ls"
            )
    elif path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES:
        videos = [
            str(video)
            for video in find_videos(
                [source],
                config.data.backend,
                root=config.data.root,
                follow_links=config.data.follow_links,
            )
        ]
    else:
        return read_manifest(source, **config.data.list_options)
    paths = map(os.path.abspath, videos)
    records = tuple(Record(path=path, label=None, row=row) for row, path in enumerate(paths))
    return Manifest(records=records, class_names=None, multi_label=False, source=source)


def check_extraction(config: Config) -> None:
    """Check what can be checked without torch.

    Raises:
        ConfigError: A value is missing or invalid.
    """
    if config.features.output is None:
        raise ConfigError("output= is not set; name the folder for the features")
    if config.model.pretrained in (None, "none"):
        raise ConfigError(
            f"model.pretrained={config.model.pretrained}: features need trained weights; set it to "
            "a checkpoint, a tag or hf-hub:owner/name, or give --run"
        )
    check_windows(config.features, config.clip)


def run_extraction(
    config: Config,
    manifest: Manifest,
    *,
    engine: str = "here",
    actors: int | None = None,
    dry_run: bool = False,
    model: Any = None,
) -> int:
    """Extract the features of a manifest.

    Args:
        config: The configuration; `features.output` names the folder.
        manifest: The videos.
        engine: `here`: this process, one of those that torchrun or an array started; or `ray`.
        actors: Actors of the `ray` engine.
        dry_run: Extract two videos and write nothing.
        model: A model with its weights, for the engine `here`; None: that of the configuration.

    Returns:
        The exit code: 0, or 3 if more than `features.max_broken` of the videos are unreadable.

    Raises:
        ConfigError: A value is invalid.
        FeatureError: The folder has features of other settings, or cannot be written.
    """
    if model is None:
        check_extraction(config)
    else:
        check_windows(config.features, config.clip)
    if dry_run:
        return _dry_run(config, replace(manifest, records=manifest.records[:2]))
    from hiera_video.features.engines import process_rank, run_local
    from hiera_video.features.extract import device_for

    process = process_rank()
    device = device_for(process.local_rank) if engine == "here" and model is None else None
    encoder = make_encoder(config, device, model)
    plan = make_plan(config, order_like_store(config, manifest), encoder)
    changed, reopened = plan.reopen_changed()
    if changed:
        logger.info(
            "%s changed since extraction (size, time or permission): computing %s again",
            count_of(changed, "video"),
            count_of(reopened, "shard"),
        )
    if engine == "ray":
        from hiera_video.features.engine_ray import run_ray

        stats = run_ray(plan, partial(make_encoder, config), actors=actors)
    else:
        stats = run_local(plan, encoder, rank=process.rank, world_size=process.world_size)
    return _report(config, plan, stats)


def _report(config: Config, plan: ExtractionPlan, stats: ExtractionStats) -> int:
    logger.info("%s", stats.describe(plan.workers))
    total = len(plan.ranges)
    left = total - len(plan.files.finished())
    logger.info("%s: %s", plan.folder, f"{left} of {total} shards remain" if left else "complete")
    limit = config.features.max_broken
    summaries = [plan.files.read_summary(number) for number in plan.files.finished()]
    unreadable = sum(summary["broken"] for summary in summaries)
    if unreadable > stats.unreadable:
        logger.info(
            "skipped %s of earlier runs; one that is replaced or can be read again is tried again",
            count_of(unreadable - stats.unreadable, "unreadable video"),
        )
    if unreadable > limit * sum(summary["videos"] for summary in summaries):
        found = count_of(unreadable, "unreadable video")
        logger.error("%s: more than features.max_broken=%g", found, limit)
        return TOO_MANY_UNREADABLE
    return DONE


def _dry_run(config: Config, manifest: Manifest) -> int:
    from hiera_video.features.engines import run_local
    from hiera_video.features.extract import device_for
    from hiera_video.features.store import FeatureStore

    with tempfile.TemporaryDirectory() as folder:
        config = replace(config, features=replace(config.features, output=folder))
        encoder = make_encoder(config, device_for(0))
        run_local(make_plan(config, manifest, encoder), encoder, progress=False)
        store = FeatureStore(folder)
        shapes = {name: list(store.matrix(name).shape) for name in store.names}
    logger.info(
        "dry run: %s gave %s; nothing written", count_of(len(manifest.records), "video"), shapes
    )
    return DONE
