"""Features of videos: what `tools/extract_features.py` and `hv.extract_features` do. No torch until all is checked."""

from __future__ import annotations

import glob
import hashlib
import logging
import math
import os
import tempfile
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiera_video.config.load import load_config
from hiera_video.config.schema import Config
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import VIDEO_SUFFIXES, Manifest, Record
from hiera_video.errors import ConfigError, FeatureError
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.windows import check_windows
from hiera_video.video.options import FrameFolder
from hiera_video.workflows.build import make_model
from hiera_video.workflows.predict import find_videos

if TYPE_CHECKING:
    from hiera_video.features.engines import Tally
    from hiera_video.features.extract import ClipEncoder
    from hiera_video.features.shard_reading import ReadWindows
    from hiera_video.features.shards import Work
    from hiera_video.features.store import FeatureStore

logger = logging.getLogger(__name__)
DONE, BROKEN_LIMIT = 0, 3
SAMPLE = 32
"""Videos at most that are opened to tell how many make `features.shard_clips` clips."""
NO_BYTES = {"input", "output", "max_broken"}
"""Keys of `features` that no byte of a shard depends on."""
PACKAGES = ("torch", "torchvision", "av", "numpy")


def extract_features(
    run: str | Path | Config,
    input: str | Path,
    output: str | Path,
    *,
    workers: int | None = None,
    **features: Any,
) -> FeatureStore:
    """Features of every video of `input` (a list, a folder, a glob, one video) into the folder `output`.

    run: a finished run's folder, a configuration file with `model.pretrained`, or a `Config`. workers: `data.workers`.
    features: keys of the `features` section, such as `window=2.0, pooling="temporal"`. Started again, it goes on where
    it was. Raises `ConfigError`, `ManifestError`, `CheckpointError` and `FeatureError`; a broken video is a row of the
    index with its reason.

    >>> store = hv.extract_features("runs/x", "videos/", "features/", window=2.0)        # doctest: +SKIP
    >>> store["videos/a.mp4"].features.shape                                             # doctest: +SKIP
    torch.Size([5, 768])
    """
    config = run if isinstance(run, Config) else config_of(run)
    unknown = sorted(set(features) - set(FeaturesConfig.__dataclass_fields__))
    if unknown:
        raise ConfigError(
            f"{unknown[0]!r} is no key of features; it has {', '.join(FeaturesConfig.__dataclass_fields__)}"
        )
    section = replace(config.features, input=os.fspath(input), output=os.fspath(output), **features)
    data = config.data if workers is None else replace(config.data, workers=workers)
    config = replace(config, features=section, data=data)
    run_extraction(config, read_input(config))
    from hiera_video.features.store import FeatureStore

    return FeatureStore(output)


def config_of(run: str | Path, overrides: tuple[str, ...] = ()) -> Config:
    """Of a run's folder, with its best checkpoint's weights, or of a file. `ConfigError` where it is neither."""
    path = Path(run)
    if not path.is_dir():
        return load_config(path, overrides)
    if not (path / "config.yaml").is_file():
        raise ConfigError(f"{path}: holds no config.yaml; give the out_dir of a run")
    return load_config(path / "config.yaml", [f"model.pretrained={path}", *overrides])


def read_input(config: Config) -> Manifest:
    """The videos of `features.input`, labels or not. `ConfigError` or `ManifestError` where there are none."""
    source = config.features.input
    if source is None:
        raise ConfigError(
            "input= is not set; name a list of videos, a folder, a glob such as 'videos/*.mp4' or a video"
        )
    path = Path(source)
    if any(sign in source for sign in "*?[") and not path.exists():
        frames = isinstance(config.data.backend, FrameFolder)  # such videos are folders
        names = glob.glob(source, recursive=True)  # noqa: PTH207 (absolute and relative patterns)
        found = sorted(name for name in names if Path(name).is_dir() == frames)
        if not found:
            what = "folder of frames" if frames else "file"
            raise ConfigError(
                f"input={source}: matches no {what}; quote the glob, and check it with ls"
            )
    elif path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES:
        found = [str(video) for video in find_videos([source], config.data.backend)]
    else:
        return read_manifest(source, root=config.data.root, separator=config.data.separator)
    paths = map(os.path.abspath, found)
    records = tuple(Record(path=path, label=None, row=row) for row, path in enumerate(paths))
    return Manifest(records=records, class_names=None, multi_label=False, source=source)


def check(config: Config) -> None:
    """`ConfigError` for what can be said before torch is imported."""
    if config.features.output is None:
        raise ConfigError("output= is not set; name the folder that the features go to")
    if config.model.pretrained in (None, "none"):
        raise ConfigError(
            f"model.pretrained={config.model.pretrained}: fresh weights give features of nothing; set it to a checkpoint, "
            "a tag or hf-hub:owner/name, or give --run"
        )
    check_windows(config.features, config.clip)


def run_extraction(
    config: Config,
    manifest: Manifest,
    *,
    engine: str = "here",
    actors: int | None = None,
    dry_run: bool = False,
) -> int:
    """Extract with engine `here` (this process, as one of torchrun's or an array's) or `ray`; exit code 3 where more
    videos are broken than `features.max_broken` allows."""
    check(config)
    if dry_run:
        return _dry_run(config, replace(manifest, records=manifest.records[:2]))
    from hiera_video.features.engines import place, run_here
    from hiera_video.features.extract import device_of

    here = place()
    encoder = make_encoder(config, device_of(here.local_rank) if engine == "here" else None)
    work = make_work(config, manifest, encoder)
    if engine == "ray":
        from hiera_video.features.engine_ray import run_ray

        tally = run_ray(work, partial(make_encoder, config), actors=actors)
    else:
        tally = run_here(work, encoder, rank=here.rank, world=here.world)
    return _conclude(config, work, tally)


def _conclude(config: Config, work: Work, tally: Tally) -> int:
    logger.info("%s", tally.in_words(work.workers))
    left = work.num_shards - len(work.files.finished())
    logger.info(
        "%s: %s", work.folder, f"{left} of {work.num_shards} shards to go" if left else "complete"
    )
    if tally.broken > config.features.max_broken * tally.videos:
        logger.error(
            "%d broken videos are over features.max_broken=%g",
            tally.broken,
            config.features.max_broken,
        )
        return BROKEN_LIMIT
    return DONE


def _dry_run(config: Config, manifest: Manifest) -> int:
    from hiera_video.features.engines import run_here
    from hiera_video.features.extract import device_of
    from hiera_video.features.store import FeatureStore

    with tempfile.TemporaryDirectory() as folder:
        config = replace(config, features=replace(config.features, output=folder))
        encoder = make_encoder(config, device_of(0))
        run_here(make_work(config, manifest, encoder), encoder, progress=False)
        store = FeatureStore(folder)
        shapes = {name: list(store.matrix(name).shape) for name in store.names}
    logger.info("dry run: %d videos gave %s; nothing written", len(manifest.records), shapes)
    return DONE


def make_encoder(config: Config, device: Any = None) -> ClipEncoder:
    """The model, on `device` (the GPU that there is, or the CPU)."""
    from hiera_video.features.extract import ClipEncoder, device_of

    model: Any = make_model(config, None, pretrained=config.model.pretrained)
    return ClipEncoder(model, config.features, device or device_of(0))


def make_work(config: Config, manifest: Manifest, encoder: ClipEncoder) -> Work:
    """What the engines share. Raises `FeatureError` where the output folder was begun with something else."""
    from hiera_video.data.loading.quarantine import FILE_NAME, QuarantinePolicy
    from hiera_video.data.transforms.train_eval import EvalTransform
    from hiera_video.features.shard_files import ShardFiles
    from hiera_video.features.shard_reading import ReadWindows
    from hiera_video.features.shards import Work

    features, size = config.features, config.input_size
    read = ReadWindows(
        config.clip,
        features,
        EvalTransform(size[1], 1, config.augment.mean, config.augment.std),
        clip_bytes=4 * encoder.model.config.in_chans * size[0] * size[1] * size[2],
        decoder=config.data.backend,
    )
    files = ShardFiles(str(features.output))
    quarantine = QuarantinePolicy(
        deadline_seconds=config.data.deadline_seconds, file=str(files.folder / FILE_NAME)
    )
    notes: dict[str, Any] = {
        "identity": identity(config, manifest, encoder),
        "names": encoder.names,
        "pretrained": config.model.pretrained,  # where a search finds the weights; their hash is in the identity
        "dtype": features.dtype,
        "videos": len(manifest.records),
    }
    if files.has_begun:
        found = files.notes()
    else:
        found = files.begin(
            {**notes, "shard_videos": _shard_videos(config, manifest, read, quarantine)}
        )
    _refuse_others(files.folder, found["identity"], notes["identity"])
    return Work(
        records=manifest.records,
        shard_videos=found["shard_videos"],
        folder=str(files.folder),
        config=features,
        read=read,
        quarantine=quarantine,
        workers=config.data.workers,
    )


def identity(config: Config, manifest: Manifest, encoder: ClipEncoder) -> dict[str, Any]:
    """All that decides a byte of the output, by the key that sets it."""
    from hiera_video.models.weights.digest import weights_digest

    videos = hashlib.sha256()
    for record in manifest.records:
        videos.update(
            f"{record.path}\0{record.start_seconds} {record.end_seconds} {record.num_frames}\n".encode()
        )
    clip = {
        key: value
        for key, value in asdict(config.clip).items()
        if key not in ("repeats", "test_starts")
    }
    features = {key: value for key, value in asdict(config.features).items() if key not in NO_BYTES}
    return {
        "weights": weights_digest(encoder.model),
        "videos": videos.hexdigest(),
        "model.name": config.model.name,
        "model.input_size": list(config.input_size),
        "augment.mean": list(config.augment.mean),
        "augment.std": list(config.augment.std),
        **config.data.decoding,
        **{f"clip.{key}": value for key, value in clip.items()},
        **{f"features.{key}": value for key, value in features.items() if key != "stages"},
        "features.stages": list(encoder.stages),
        "device": encoder.device.type,
        **{f"version of {name}": version(name) for name in PACKAGES},
    }


def _refuse_others(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    other = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if other:
        said = "; ".join(
            f"{key} was {_short(before.get(key))}, now {_short(now.get(key))}" for key in other
        )
        raise FeatureError(
            f"{folder}: was begun with other settings ({said}); make them equal or choose another output"
        )


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else str(value)


def _shard_videos(config: Config, manifest: Manifest, read: ReadWindows, quarantine: Any) -> int:
    """`features.shard_videos`, or as many as hold about `features.shard_clips` clips, by the number in some of them."""
    from hiera_video.data.loading.map_videos import map_videos
    from hiera_video.features.shard_reading import WindowCounter

    if config.features.shard_videos is not None:
        return config.features.shard_videos
    step = max(math.ceil(len(manifest.records) / SAMPLE), 1)
    sample = manifest.records[::step]
    counts = map_videos(
        WindowCounter(read), sample, workers=config.data.workers, quarantine=quarantine
    )
    known = [count for count in counts if count]
    return (
        max(round(config.features.shard_clips * len(known) / sum(known)), 1)
        if known
        else config.features.shard_clips
    )
