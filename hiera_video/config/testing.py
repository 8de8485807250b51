"""Assembles a test from a `Config`: what `tools/test_net.py` does after the checks that need no torch."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from hiera_video.config.build import make_model, make_views
from hiera_video.config.schema import Config
from hiera_video.data.manifest import Manifest
from hiera_video.errors import CheckpointError, ManifestError
from hiera_video.eval.evaluate import predict_views
from hiera_video.eval.report import Tested, write_report, write_results
from hiera_video.runtime.distributed import world
from hiera_video.runtime.log import read_metrics

logger = logging.getLogger(__name__)
DONE, BROKEN_LIMIT = 0, 3


def test_run(config: Config, manifest: Manifest, num_classes: int | None, *, dry_run: bool) -> int:
    """Multi-view test of `test.checkpoint`, by default the best (else the last) checkpoint of `out_dir`."""
    folder = Path(config.out_dir)
    checkpoint = config.test.checkpoint or _of_run(folder)
    if dry_run:
        manifest = replace(manifest, records=manifest.records[:2])
    with world() as here:
        model = make_model(config, num_classes, pretrained=checkpoint).to(here.device)
        predictions = predict_views(
            model,
            make_views(config, manifest, clips=config.test.clips, crops=config.test.crops),
            batch_size=config.test.batch_size,
            workers=config.data.workers,
            world=here,
            progress=True,
        )
        if not here.is_main:
            return DONE
    for item in predictions.broken:
        logger.warning("row %d cannot be read: %s", item.row, item.message)
    if not len(predictions.rows):
        raise ManifestError(f"{manifest.source}: none of its {len(manifest.records)} videos can be read; see above")
    if dry_run:
        logger.info("dry run: logits [videos, views, classes] %s; nothing written", list(predictions.logits.shape))
        return DONE
    folder.mkdir(parents=True, exist_ok=True)
    tested = Tested(model=config.model.name, checkpoint=checkpoint, views=f"{config.test.clips}×{config.test.crops}")
    results = write_results(folder, tested, predictions, manifest)
    report = write_report(folder, results, predictions, manifest, read_metrics(folder / "metrics.jsonl"))
    numbers = "  ".join(
        f"{name} {results[name]:.2f}" for name in ("top1", "top5", "mean_class", "mAP") if name in results
    )
    logger.info("%s views: %s  (evaluated %d of %d)", tested.views, numbers, results["evaluated"], results["of"])
    logger.info("report: %s", report)
    if len(predictions.broken) > config.test.max_broken * len(manifest.records):
        logger.error("%d broken videos are over test.max_broken=%g", len(predictions.broken), config.test.max_broken)
        return BROKEN_LIMIT
    return DONE


def _of_run(folder: Path) -> str:
    for name in ("best", "last"):
        if (folder / "checkpoints" / name).exists():
            return str(folder / "checkpoints" / name)
    raise CheckpointError(
        f"{folder}/checkpoints: holds no checkpoint; train first, or set test.checkpoint to a file or run"
    )
