"""The `test` command of action detection: boxes of key frames, scored and compared with labels."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiera_video.config.schema import Config
from hiera_video.data.detection.key_frame import BoxManifest
from hiera_video.eval.box_scores import require_readable, score_boxes
from hiera_video.eval.detection_report import write_detection_report
from hiera_video.eval.detection_results import (
    BoxScores,
    DetectionSetup,
    write_detection_results,
)
from hiera_video.eval.shards import EvalShardStore, lock_results
from hiera_video.models.compiled import compile_blocks
from hiera_video.models.weights.load import Weights, load_pretrained, read_weights
from hiera_video.runtime.distributed import World, init_distributed
from hiera_video.utils.text_files import count_of
from hiera_video.workflows.build import make_model
from hiera_video.workflows.detect import make_box_views
from hiera_video.workflows.key_frames import (
    classes_that_count,
    read_boxes_to_score,
    require_same_classes,
)
from hiera_video.workflows.test import (
    DONE,
    PARTIAL,
    TOO_MANY_UNREADABLE,
    check_classes,
    find_tested_checkpoint,
    identity,
    is_main_process,
    is_validation_list,
    results_folder,
    should_compile,
)

logger = logging.getLogger(__name__)


def run_detection_test(config: Config, truth: BoxManifest, *, dry_run: bool) -> int:
    """Test a detector and write results, predictions and a report into `results_folder`.

    A test that is started again continues after its last finished key frames.

    Args:
        config: `test.checkpoint` names the weights, `detect.boxes` the boxes to score.
        truth: Labelled boxes.
        dry_run: Score two key frames and write nothing.

    Returns:
        Exit code: 0, or 3 if more than `test.max_broken` of the key frames are unreadable.

    Raises:
        CheckpointError: The checkpoint cannot be read or does not fit the configuration.
        ManifestError: A list is wrong, its classes are not the checkpoint's, or no key frame can be
            read.
        ConfigError: Another test writes into the folder.
    """
    folder = results_folder(Path(config.out_dir), truth)
    checkpoint = find_tested_checkpoint(config)
    with nullcontext() if dry_run or not is_main_process() else lock_results(folder):
        return _run_test(config, truth, folder, checkpoint, dry_run=dry_run)


def _run_test(
    config: Config, truth: BoxManifest, folder: Path, checkpoint: str, *, dry_run: bool
) -> int:
    weights = read_weights(checkpoint, config.model.name)
    require_same_classes(truth, weights.class_names, checkpoint)
    num_classes = check_classes(config, weights, truth)
    counted, scored = classes_that_count(config, truth), read_boxes_to_score(config, truth)
    if dry_run:
        scored = replace(scored, records=scored.records[:2])
    with init_distributed() as world:
        kept_in = None if dry_run else folder
        found, store = _score(config, scored, weights, num_classes, world, kept_in)
        if not world.is_main:
            return DONE
    for video in found.unreadable:
        logger.warning("%s is unreadable: %s", scored.records[video.row].where, video.message)
    require_readable(found, scored)
    if dry_run:
        shapes = [list(scores.shape) for scores in found.scores]
        logger.info("dry run: scores [boxes, classes] %s; nothing written", shapes)
        return DONE
    setup = DetectionSetup(
        model=config.model.name,
        checkpoint=checkpoint,
        crops=config.test.crops,
        precision=config.test.precision,
        chosen_here=Path(checkpoint).name == "best"
        and is_validation_list(config, checkpoint, truth),
    )
    results = write_detection_results(folder, setup, found, truth, counted)
    start, decoder = config.detect.start_seconds, config.data.backend
    report = write_detection_report(
        folder, results, found, truth, counted, start_seconds=start, decoder=decoder
    )
    if store:
        store.clear()
    _log_results(results, found, len(scored.records), report)
    if len(found.unreadable) > config.test.max_broken * len(scored.records):
        logger.error(
            "%s: more than test.max_broken=%g",
            count_of(len(found.unreadable), "unreadable key frame"), config.test.max_broken,
        )  # fmt: skip
        return TOO_MANY_UNREADABLE
    return DONE


def _score(
    config: Config,
    scored: BoxManifest,
    weights: Weights,
    num_classes: int,
    world: World,
    folder: Path | None,
) -> tuple[BoxScores, EvalShardStore | None]:
    """Return the scores, and the store of finished shards in `folder`, None without a folder."""
    test = config.test
    model = make_model(config, num_classes, pretrained=None)
    load_pretrained(model, weights, name=config.model.name)  # type: ignore[arg-type]
    compiled = should_compile(test, world.device, num_views=len(scored.records))
    store = None
    if folder is not None:
        key = {
            **identity(config, model, world, [1, test.crops]),
            "precision": test.precision,
            "start_seconds": config.detect.start_seconds,
            "compiled": compiled,
        }
        store = EvalShardStore(folder / PARTIAL, key, scored.records)
    model = model.to(world.device)
    if compiled:
        compile_blocks(model, reproducible=True)
    found = score_boxes(
        model,
        make_box_views(config, scored),
        batch_size=test.batch_size,
        workers=config.data.workers,
        world=world,
        precision=test.precision,
        store=store,
        progress=True,
    )
    return found, store


def _log_results(results: dict[str, Any], found: BoxScores, of: int, report: Path) -> None:
    metrics = "  ".join(
        f"{name} {results[name]:.2f}"
        for name in ("mAP", "box_accuracy", "box_recall")
        if results[name] is not None
    )
    logger.info(
        "%d boxes: %s  (evaluated %d of %d key frames)",
        results["scored_boxes"], metrics, len(found.frames), of,
    )  # fmt: skip
    if found.boxes_outside:
        logger.warning(
            "warning: %d boxes lie outside the centre crop, so their scores say nothing about "
            "them; set test.crops=3 to cover the whole frame",
            found.boxes_outside,
        )
    if results["chosen_here"]:
        logger.info(
            "this checkpoint was selected by its mAP on the same list, so the result is "
            "optimistic; for an unbiased one set test.checkpoint=%s",
            Path(results["checkpoint"]).with_name("last"),
        )
    logger.info("report: %s", report)
