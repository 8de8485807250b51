"""Assembles a test from a `Config`: what `tools/test_net.py` does after the checks that need no torch."""

from __future__ import annotations

import logging
import platform
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import CheckpointError, ManifestError
from hiera_video.eval.class_names import align_classes, align_label_count
from hiera_video.eval.evaluate import predict_views
from hiera_video.eval.report import write_report
from hiera_video.eval.results import Tested, write_results
from hiera_video.eval.shards import EvalShardStore
from hiera_video.models.weights.digest import weights_digest
from hiera_video.models.weights.load import Weights, checkpoint_of, load_pretrained, read_weights
from hiera_video.runtime.distributed import World, init_distributed
from hiera_video.runtime.log import read_metrics
from hiera_video.workflows.build import make_model, make_views

logger = logging.getLogger(__name__)
DONE, BROKEN_LIMIT = 0, 3
PARTIAL = ".test.partial"
"""Folder in `out_dir` that keeps the finished shards of a test until it is complete."""


def test_run(config: Config, manifest: Manifest, *, dry_run: bool) -> int:
    """Multi-view test of `test.checkpoint`, by default the best (else the last) checkpoint of `out_dir`."""
    folder = Path(config.out_dir)
    checkpoint = config.test.checkpoint or str(folder)
    if (
        not config.test.checkpoint or (Path(checkpoint) / "checkpoints").is_dir()
    ):  # a run: which of its checkpoints?
        checkpoint = str(checkpoint_of(Path(checkpoint)))
    weights = read_weights(checkpoint, config.model.name)
    manifest = align_label_count(manifest, weights.multi_label, of=checkpoint)
    manifest = align_classes(
        manifest, weights.class_names, checkpoint=checkpoint, remap=config.test.remap_classes
    )
    num_classes = _classes_of(config, weights, manifest)
    if dry_run:
        manifest = replace(manifest, records=manifest.records[:2])
    views = make_views(config, manifest, clips=config.test.clips, crops=config.test.crops)
    with init_distributed() as here:
        model = make_model(config, num_classes, pretrained=None)
        load_pretrained(model, weights, name=config.model.name)  # type: ignore[arg-type]
        what = {
            **identity(config, model, here, [config.test.clips, config.test.crops]),
            "precision": config.test.precision,
        }
        store = None if dry_run else EvalShardStore(folder / PARTIAL, what, manifest.records)
        predictions = predict_views(
            model.to(here.device),
            views,
            batch_size=config.test.batch_size,
            workers=config.data.workers,
            world=here,
            precision=config.test.precision,
            store=store,
            progress=True,
        )
        if not here.is_main:
            return DONE
    for item in predictions.broken:
        logger.warning("row %d cannot be read: %s", item.row, item.message)
    if not len(predictions.rows):
        raise ManifestError(
            f"{manifest.source}: none of its {len(manifest.records)} videos can be read; see above"
        )
    if (found := predictions.logits.shape[1]) != (wanted := config.test.clips * config.test.crops):
        raise RuntimeError(f"{found} views a video were counted, {wanted} were asked for")
    if dry_run:
        logger.info(
            "dry run: logits [videos, views, classes] %s; nothing written",
            list(predictions.logits.shape),
        )
        return DONE
    chosen_here = Path(checkpoint).name == "best" and config.data.test in (None, config.data.val)
    tested = Tested(
        model=config.model.name,
        checkpoint=checkpoint,
        clips=config.test.clips,
        crops=config.test.crops,
        precision=config.test.precision,
        chosen_here=chosen_here,
    )
    results = write_results(folder, tested, predictions, manifest)
    metrics = read_metrics(folder / "metrics.jsonl")
    report = write_report(folder, results, predictions, manifest, metrics, config.data.backend)
    if store:
        store.clear()
    numbers = "  ".join(
        f"{name} {results[name]:.2f}"
        for name in ("top1", "top5", "mean_class", "mAP")
        if name in results
    )
    logger.info(
        "%s views: %s  (evaluated %d of %d)",
        tested.views,
        numbers,
        results["evaluated"],
        results["of"],
    )
    if chosen_here:
        logger.info("this checkpoint was the best of its run on this very list, so the number is that of a choice; without one: "
                    "test.checkpoint=%s", Path(checkpoint).with_name("last"))  # fmt: skip
    logger.info("report: %s", report)
    if len(predictions.broken) > config.test.max_broken * len(manifest.records):
        logger.error(
            "%d broken videos are over test.max_broken=%g",
            len(predictions.broken),
            config.test.max_broken,
        )
        return BROKEN_LIMIT
    return DONE


# not a test case, whatever pytest reads into the name
test_run.__test__ = False  # type: ignore[attr-defined]


def _classes_of(config: Config, weights: Weights, manifest: Manifest) -> int:
    """Outputs of the checkpoint's head; it must have one, and the manifest's labels must be below it."""
    count = weights.num_classes
    if count is None:
        raise CheckpointError(
            f"{weights.source}: has no classifier's head, so it cannot be tested; fine-tune from it first "
            f"(model.pretrained={weights.source})"
        )
    if config.model.num_classes not in (None, count):
        raise CheckpointError(
            f"{weights.source}: has {count} classes, model.num_classes={config.model.num_classes}; leave "
            "model.num_classes unset or choose another checkpoint"
        )
    if manifest.num_classes > count:
        raise ManifestError(
            f"{manifest.source}: has labels up to {manifest.num_classes - 1}, {weights.source} has {count} classes; "
            "correct the labels or choose another checkpoint"
        )
    return count


def identity(config: Config, model: nn.Module, here: World, views: list[int]) -> dict[str, Any]:
    """All that decides a view's outputs but the video itself: a shard computed under another identity is not this test's.
    `views`: clips and crops of a video."""
    return {
        "weights": weights_digest(model),
        "model": config.model.name,
        "input_size": list(config.input_size),
        "clip": asdict(config.clip),
        "normalise": [list(config.augment.mean), list(config.augment.std)],
        "views": views,
        "batch_size": config.test.batch_size,
        **config.data.decoding,
        "device": torch.cuda.get_device_name(here.device)
        if here.device.type == "cuda"
        else platform.machine(),
        "versions": [version(name) for name in ("torch", "torchvision", "av", "numpy")],
    }
