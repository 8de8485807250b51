"""Plan of an extraction: its shards, and the identity that decides what an earlier store keeps."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.errors import FeatureError
from hiera_video.features.windows import sliding_windows, view_windows
from hiera_video.utils.text_files import encode_text
from hiera_video.workflows.build import make_model, make_quarantine_policy

if TYPE_CHECKING:
    from hiera_video.data.loading.quarantine import QuarantinePolicy
    from hiera_video.features.extract import ClipEncoder
    from hiera_video.features.shard_reading import ReadWindows
    from hiera_video.features.shards import ExtractionPlan

logger = logging.getLogger(__name__)
SAMPLE = 32
"""Most videos to open when estimating how many make `features.shard_clips` clips."""
NOT_IN_IDENTITY = {"input", "output", "max_broken", "compile"}
"""Keys of `features` that do not change a byte of a shard, or count apart."""
PACKAGES = ("torch", "torchvision", "av", "numpy")


def make_encoder(config: Config, device: Any = None, model: Any = None) -> ClipEncoder:
    """Create the encoder on `device`; None: a GPU if there is one, else the CPU.

    Args:
        config: The configuration.
        device: Where the model runs.
        model: A model with its weights, which stays on its device; None: that of the configuration.
    """
    from hiera_video.features.extract import ClipEncoder, device_for

    if model is not None:
        return ClipEncoder(model, config.features, next(model.parameters()).device)
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a head that the weights lack is in their digest
        model = make_model(config, None, pretrained=config.model.pretrained)
    return ClipEncoder(model, config.features, device or device_for(0))


def make_plan(
    config: Config,
    manifest: Manifest,
    encoder: ClipEncoder,
    *,
    views: tuple[int, int] | None = None,
    quarantine: QuarantinePolicy | None = None,
) -> ExtractionPlan:
    """Create the output folder, or check that it was created with the same settings.

    Args:
        config: The configuration; `features.output` names the folder.
        manifest: The videos.
        encoder: The model.
        views: (clips, crops) of a multi-view test to extract instead of sliding windows.
        quarantine: Where videos that hang a worker are recorded; None: in the output folder.

    Raises:
        FeatureError: The folder was created with other settings, or cannot be written.
    """
    from hiera_video.features.shard_files import ShardFiles
    from hiera_video.features.shards import ExtractionPlan

    features, read = config.features, _make_reader(config, encoder, views, manifest.records)
    files = ShardFiles(str(features.output))
    quarantine = quarantine or make_quarantine_policy(replace(config, out_dir=str(files.folder)))
    metadata: dict[str, Any] = {
        "identity": extraction_identity(config, manifest, encoder, views),
        "names": encoder.names,
        "pretrained": config.model.pretrained,  # where search finds the weights
        "dtype": features.dtype,
        "videos": len(manifest.records),
    }
    if files.exists:
        found = files.read_metadata()
        if _grows(manifest, found, metadata["identity"]):
            logger.info(
                "%s: grows from %d to %d videos",
                files.folder, found["videos"], len(manifest.records),
            )  # fmt: skip
            grown = {key: metadata[key] for key in ("identity", "videos")}
            if not Path(manifest.source).is_file():  # see `order_like_store`
                new = [record.path for record in manifest.records[found["videos"] :]]
                grown["appended"] = [*found.get("appended", []), *new]
            found = files.extend({**found, **grown})
        if not isinstance(found.get("shard_videos"), int) or found["shard_videos"] < 1:
            raise FeatureError(
                f"{files.folder}: its features.json is damaged "
                f"(shard_videos={found.get('shard_videos')!r}); choose another output"
            )
    else:
        shard_videos = _shard_videos(config, manifest, read, quarantine)
        found = files.create({**metadata, "shard_videos": shard_videos})
    _check_same_settings(files.folder, found["identity"], metadata["identity"])
    return ExtractionPlan(
        records=manifest.records,
        shard_videos=found["shard_videos"],
        folder=str(files.folder),
        config=features,
        read=read,
        quarantine=quarantine,
        workers=config.data.workers,
    )


def _make_reader(
    config: Config,
    encoder: ClipEncoder,
    views: tuple[int, int] | None,
    records: tuple[Record, ...],
) -> ReadWindows:
    from hiera_video.data.transforms.train_eval import EvalTransform
    from hiera_video.features.shard_reading import ReadWindows

    size, augment = config.input_size, config.augment
    if views is None:
        rule, crops = partial(sliding_windows, clip=config.clip, config=config.features), 1
    else:
        clips, crops = views
        rule = partial(view_windows, clip=config.clip, num_clips=clips)
    return ReadWindows(
        rule,
        EvalTransform(size[1], crops, augment.mean, augment.std),
        clip_bytes=4 * encoder.model.config.in_chans * math.prod(size) * crops,
        decoder=config.data.backend,
        records=records,
    )


def extraction_identity(
    config: Config,
    manifest: Manifest,
    encoder: ClipEncoder,
    views: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Return everything that determines a byte of the output, by its config key."""
    from hiera_video.models.weights.digest import weights_digest

    clip, features = asdict(config.clip), asdict(config.features)
    del clip["repeats"], features["stages"]
    if views is None:
        del clip["test_starts"]
    return {
        "weights": weights_digest(encoder.model),
        "videos": _digest_videos(manifest.records),
        "model.name": config.model.name,
        "model.input_size": list(config.input_size),
        "augment.mean": list(config.augment.mean),
        "augment.std": list(config.augment.std),
        **config.data.decoding,
        **{f"clip.{key}": value for key, value in clip.items()},
        **{f"features.{key}": features[key] for key in features if key not in NOT_IN_IDENTITY},
        "features.stages": list(encoder.stages),
        **({"features.compile": True} if config.features.compile else {}),
        **({"views": list(views)} if views else {}),
        "device": encoder.device.type,
        **{f"version of {name}": version(name) for name in PACKAGES},
    }


def _grows(manifest: Manifest, found: dict[str, Any], identity: dict[str, Any]) -> bool:
    """Return True if the manifest is the store's list, followed by new videos."""
    count = found["videos"]
    if not 0 < count < len(manifest.records):
        return False
    first = {**identity, "videos": _digest_videos(manifest.records[:count])}
    return bool(found["identity"] == first)


def order_like_store(config: Config, manifest: Manifest) -> Manifest:
    """Return the videos of a folder in the order of an existing store, followed by new ones.

    A list is returned as it is, one of a caller's own too (without `features.input`): its order is
    the user's.
    """
    from hiera_video.features.shard_files import ShardFiles
    from hiera_video.features.store import FeatureStore

    files = ShardFiles(str(config.features.output))
    is_list = config.features.input is None or Path(manifest.source).is_file()
    if is_list or not files.exists:
        return manifest
    found, by_path = files.read_metadata(), {record.path: record for record in manifest.records}
    appended = [path for path in found.get("appended", []) if path in by_path]
    known = [*(path for path in by_path if path not in set(appended)), *appended]
    if _digest_videos([by_path[path] for path in known]) != found["identity"].get("videos"):
        store = FeatureStore(files.folder)
        known = store.paths() if store.is_complete else []
    if not known or not by_path.keys() >= set(known):
        return manifest
    paths = [*known, *sorted(by_path.keys() - set(known))]
    records = tuple(replace(by_path[path], row=row) for row, path in enumerate(paths))
    return replace(manifest, records=records)


def _digest_videos(records: Sequence[Record]) -> str:
    videos = hashlib.sha256()
    for record in records:
        part = f"{record.start_seconds} {record.end_seconds} {record.num_frames}"
        videos.update(encode_text(f"{record.path}\0{part}\n"))
    return videos.hexdigest()


def _check_same_settings(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed == ["videos"]:
        raise FeatureError(
            f"{folder}: has features of another list of videos; a store grows only by videos that "
            "follow its own: append them to its list, or choose another output"
        )
    if changed:
        changes = "; ".join(
            f"{key} was {_short(before.get(key))}, now {_short(now.get(key))}" for key in changed
        )
        raise FeatureError(
            f"{folder}: has features of other settings ({changes}); restore them or choose another "
            "output"
        )


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else str(value)


def _shard_videos(
    config: Config, manifest: Manifest, read: ReadWindows, quarantine: QuarantinePolicy
) -> int:
    """Return `features.shard_videos`, or about as many as have `features.shard_clips` clips.

    The number of clips per video is estimated from a sample.
    """
    from hiera_video.data.loading.map_videos import map_videos

    features = config.features
    if features.shard_videos is not None:
        return features.shard_videos
    step = max(math.ceil(len(manifest.records) / SAMPLE), 1)
    counts = map_videos(
        read.count, manifest.records[::step], workers=config.data.workers, quarantine=quarantine
    )
    known = [count for count in counts if count]
    if not known:
        return features.shard_clips
    return max(round(features.shard_clips * len(known) / sum(known)), 1)
