"""Train probes on frozen features: `hiera-video train` with `train.task=probe`."""

from __future__ import annotations

import json
import logging
import math
import tempfile
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Manifest
from hiera_video.data.sampling import check_num_clips
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.eval.evaluate import single_labels
from hiera_video.eval.metrics import accuracy, intervals
from hiera_video.eval.shards import record_states
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.engines import run_local
from hiera_video.features.extract import ClipEncoder
from hiera_video.features.store import FeatureStore
from hiera_video.models.hiera import HieraEncoder
from hiera_video.probe.probes import LabelledFeatures, run_probe
from hiera_video.runtime.distributed import World, init_distributed
from hiera_video.runtime.run_folder import lock_run_folder, write_environment
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.resumable import identity_folder
from hiera_video.utils.text_files import count_of
from hiera_video.workflows.build import make_model, make_quarantine_policy
from hiera_video.workflows.extraction_plan import extraction_identity, make_plan

logger = logging.getLogger(__name__)
FOLDER = "probe"
"""Subfolder of `out_dir` for everything that is written. `out_dir` may be the run whose weights are
probed, whose own files stay unchanged."""


def probe_run(
    config: Config, train: Manifest, val: Manifest | None, num_classes: int | None, *, dry_run: bool
) -> int:
    """Extract features of both lists, train the probes and write `out_dir/probe/probes.json`.

    The features are kept in feature stores, so finished shards are not extracted again.

    Args:
        config: The configuration.
        train: Training videos.
        val: Test videos.
        num_classes: Number of classes.
        dry_run: Extract two videos of each list and write nothing.

    Returns:
        The exit code.

    Raises:
        ConfigError: There is no `val`, or the features would take too much memory.
        ManifestError: Videos have several labels, or none can be read.
    """
    if val is None:
        raise ConfigError("data.val is not set; train.task=probe tests on the videos of data.val")
    if train.multi_label or val.multi_label:
        raise ManifestError(
            f"{train.source}: has several labels per video; probes need exactly one"
        )
    check_num_clips(config.clip, config.probe.clips, "probe.clips")
    if dry_run:
        train, val = (replace(part, records=part.records[:2]) for part in (train, val))
    assert num_classes is not None
    folder = Path(config.out_dir) / FOLDER
    with (
        init_distributed() as world,
        lock_run_folder(folder) if world.is_main and not dry_run else nullcontext(),
    ):
        config = replace(config, features=_features_config(config))
        encoder = _make_encoder(config, num_classes, world.device)
        _check_memory(config, encoder, len(train.records) + len(val.records))
        if dry_run:
            return _dry_run(config, encoder, train, val) if world.is_main else 0
        features, test_features = (
            _extract(config, encoder, part, world, folder / "features" / name)
            for part, name in ((train, "train"), (val, "val"))
        )
        if not world.is_main:
            return 0
        write_environment(folder)
        results = {
            "model": config.model.name,
            "weights": config.model.pretrained,
            "views": f"{config.probe.clips}x{config.probe.crops}",
            "train_videos": len(features.labels),
            "evaluated": len(test_features.labels),
            "of": len(val.records),
            "probes": _run_probes(config, features, test_features, num_classes),
        }
        write_atomic(folder / "probes.json", json.dumps(results, indent=1))
    for line in format_table(results):
        logger.info("%s", line)
    logger.info("results: %s", folder / "probes.json")
    return 0


def _dry_run(config: Config, encoder: ClipEncoder, train: Manifest, val: Manifest) -> int:
    alone = World(0, 1, encoder.device)
    with tempfile.TemporaryDirectory() as folder:
        shapes = [
            list(_extract(config, encoder, part, alone, Path(folder) / name).features.shape)
            for part, name in ((train, "train"), (val, "val"))
        ]
    logger.info(
        "dry run: features [videos, views, tokens, channels] %s; nothing written", shapes[0]
    )
    return 0


def _features_config(config: Config) -> FeaturesConfig:
    """Return settings with which a shard fills whole batches of the size of a test."""
    return FeaturesConfig(
        pooling="none" if "attentive" in config.probe.kinds else "mean",
        batch_size=config.test.batch_size,
        shard_videos=config.test.batch_size,
        # rounding on the CPU depends on it, so it is part of the store's identity
        threads=1 if torch.cuda.is_available() else torch.get_num_threads(),
    )


def _make_encoder(config: Config, num_classes: int, device: torch.device) -> ClipEncoder:
    weights = None if config.model.pretrained == "none" else config.model.pretrained
    torch.manual_seed(config.seed)  # newly initialised weights are the same in every run
    model = make_model(config, num_classes, pretrained=weights)
    assert isinstance(model, HieraEncoder)
    return ClipEncoder(model, config.features, device)


def _extract(
    config: Config, encoder: ClipEncoder, manifest: Manifest, world: World, parent: Path
) -> LabelledFeatures:
    """Extract all views of the videos, and return the features of those that can be read.

    `parent` gets one store per model, protocol and state of the video files. Unreadable videos are
    tried again in every run: the cause may be gone without a change of the file.
    """
    views = config.probe.clips, config.probe.crops
    identity = extraction_identity(config, manifest, encoder, views)
    folder = identity_folder(parent, [identity, record_states(manifest.records)])
    config = replace(config, features=replace(config.features, output=str(folder)))
    quarantine = make_quarantine_policy(config)
    plan = make_plan(config, manifest, encoder, views=views, quarantine=quarantine)
    if world.is_main:
        plan.files.discard_unreadable()
    world.all_gather(None)  # wait for rank 0
    run_local(plan, encoder, rank=world.rank, world_size=world.size)
    world.all_gather(None)  # wait for the shards of all ranks
    store = FeatureStore(folder)
    per_video = config.probe.clips * config.probe.crops
    rows = store.clips().column("row").to_numpy()[::per_video]
    if not len(rows):
        raise ManifestError(
            f"{manifest.source}: none of its {count_of(len(manifest.records), 'video')} can be "
            "read; see the log"
        )
    features = store.matrix()
    features = features.view(len(rows), per_video, -1, features.shape[-1])
    labels = torch.from_numpy(single_labels(manifest, rows))
    return LabelledFeatures(features=features.to(world.device), labels=labels.to(world.device))


def _check_memory(config: Config, encoder: ClipEncoder, videos: int) -> None:
    (shape,) = encoder.names.values()
    gigabytes = 4e-9 * videos * config.probe.clips * config.probe.crops * math.prod(shape)
    if gigabytes > config.probe.max_gigabytes:
        raise ConfigError(
            f"the features of {videos} videos take {gigabytes:.1f} GB, over probe.max_gigabytes="
            f"{config.probe.max_gigabytes:g}; set probe.kinds=[knn,linear], which need only the "
            "mean token, lower probe.clips, use fewer videos, or raise the limit"
        )


def _run_probes(
    config: Config, train: LabelledFeatures, val: LabelledFeatures, num_classes: int
) -> list[dict[str, Any]]:
    rows = []
    for kind in config.probe.kinds:
        answers, setting, sweep = run_probe(
            kind, train, val, config.probe, num_classes=num_classes, seed=config.seed
        )
        probabilities, labels = answers.double().cpu().numpy(), val.labels.cpu().numpy()
        scores = accuracy(probabilities, labels)
        row = {"probe": kind, "setting": asdict(setting), **scores}
        rows.append({**row, "intervals": intervals(probabilities, labels), "sweep": sweep})
        logger.info(
            "%s: top-1 %.2f with %s, chosen on the training videos",
            kind,
            scores["top1"],
            row["setting"],
        )
    return rows


def format_table(results: dict[str, Any]) -> list[str]:
    """Return the lines of a table with one probe per line and 95 % intervals over videos."""
    evaluated = f"(evaluated {results['evaluated']} of {results['of']})"
    lines = [f"{'probe':10}  top-1   95 % interval  top-5   {evaluated}"]
    for row in results["probes"]:
        low, high = row["intervals"]["top1"]
        lines.append(
            f"{row['probe']:10}  {row['top1']:5.1f}  {low:6.1f} – {high:5.1f}  {row['top5']:5.1f}"
        )
    return lines
