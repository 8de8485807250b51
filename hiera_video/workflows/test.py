"""The `test` command: multi-view test of a checkpoint."""

from __future__ import annotations

import itertools
import json
import logging
import os
import platform
from contextlib import nullcontext
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
from hiera_video.eval.config import TestConfig
from hiera_video.eval.evaluate import predict_views
from hiera_video.eval.report import write_report
from hiera_video.eval.results import EvalSetup, write_results
from hiera_video.eval.shards import EvalShardStore, lock_results
from hiera_video.eval.views import Predictions
from hiera_video.models.compiled import compile_blocks
from hiera_video.models.weights.digest import weights_digest
from hiera_video.models.weights.load import Weights, find_checkpoint, load_pretrained, read_weights
from hiera_video.runtime.distributed import World, init_distributed
from hiera_video.runtime.log import read_metrics
from hiera_video.train.list_digest import is_same_list, list_digest
from hiera_video.utils.text_files import DAMAGED_JSON, count_of
from hiera_video.workflows.build import make_model, make_views
from hiera_video.workflows.evidence_strips import evidence_drawer

logger = logging.getLogger(__name__)
DONE, TOO_MANY_UNREADABLE = 0, 3
PARTIAL = ".test.partial"
"""Folder in `out_dir` with the finished shards of a test that is not complete."""
MIN_COMPILED_VIEWS = 100_000
"""Views from which on compilation gains more time than it takes, where `test.compile` is unset."""


def run_test(config: Config, manifest: Manifest, *, dry_run: bool) -> int:
    """Test a checkpoint and write results, predictions and a report into `results_folder`.

    Args:
        config: `test.checkpoint` names the weights; by default the best of `out_dir`, or its last.
        manifest: Videos with labels.
        dry_run: Compute two videos and write nothing.

    Returns:
        Exit code: 0, or 3 if more than `test.max_broken` of the videos are unreadable.

    Raises:
        CheckpointError: The checkpoint cannot be read or does not fit the configuration.
        ManifestError: The classes do not match the checkpoint's, or no video can be read.
        ConfigError: Another test writes into the folder.
    """
    folder = results_folder(Path(config.out_dir), manifest)
    checkpoint = find_tested_checkpoint(config)
    with nullcontext() if dry_run or not is_main_process() else lock_results(folder):
        return _run_test(config, manifest, folder, checkpoint, dry_run=dry_run)


def is_main_process() -> bool:
    """Return True if this process has rank 0, before `init_distributed` says so."""
    return os.environ.get("RANK", "0") == "0"


def _run_test(
    config: Config, manifest: Manifest, folder: Path, checkpoint: str, *, dry_run: bool
) -> int:
    weights = read_weights(checkpoint, config.model.name)
    manifest = _align(manifest, weights, checkpoint, config)
    num_classes = check_classes(config, weights, manifest)
    if dry_run:
        manifest = replace(manifest, records=manifest.records[:2])
    views = make_views(config, manifest, clips=config.test.clips, crops=config.test.crops)
    with init_distributed() as world:
        model = make_model(config, num_classes, pretrained=None)
        load_pretrained(model, weights, name=config.model.name)  # type: ignore[arg-type]
        num_views = len(manifest.records) * config.test.clips * config.test.crops
        compiled = should_compile(config.test, world.device, num_views=num_views)
        store = None if dry_run else _make_store(folder, config, model, world, manifest, compiled)
        model = model.to(world.device)
        if compiled:
            compile_blocks(model, reproducible=True)
        predictions = predict_views(
            model,
            views,
            batch_size=config.test.batch_size,
            workers=config.data.workers,
            world=world,
            precision=config.test.precision,
            store=store,
            progress=True,
        )
        if not world.is_main:
            return DONE
    _check_predictions(predictions, manifest, config)
    if dry_run:
        shape = list(predictions.logits.shape)
        logger.info("dry run: logits [videos, views, classes] %s; nothing written", shape)
        return DONE
    setup = _setup(config, checkpoint, manifest)
    results = write_results(folder, setup, predictions, manifest)
    metrics = read_metrics(Path(config.out_dir) / "metrics.jsonl")
    draw_evidence = evidence_drawer(config, model, compiled=compiled)
    report = write_report(
        folder, results, predictions, manifest, metrics, config.data.backend, draw_evidence
    )
    if store:
        store.clear()
    _log_results(results, setup, report)
    unreadable, limit = len(predictions.unreadable), config.test.max_broken
    if unreadable > limit * len(manifest.records):
        found = count_of(unreadable, "unreadable video")
        logger.error("%s: more than test.max_broken=%g", found, limit)
        return TOO_MANY_UNREADABLE
    return DONE


def should_compile(test: TestConfig, device: torch.device, *, num_views: int) -> bool:
    """Return True if the model is to be compiled for a test of `num_views` views."""
    if test.compile is not None:
        return test.compile
    return device.type == "cuda" and test.precision != "fp32" and num_views >= MIN_COMPILED_VIEWS


def results_folder(out_dir: Path, manifest: Manifest) -> Path:
    """Return the folder for the results of a list: `out_dir`, if it has none of another list.

    Otherwise it is a folder there that is named after the list.
    """
    name = f"test_{Path(manifest.source).stem.removesuffix('.index')}"
    numbered = (out_dir / f"{name}_{number}" for number in itertools.count(2))
    folders = itertools.chain([out_dir, out_dir / name], numbered)
    tested = os.path.abspath(manifest.source)  # noqa: PTH100 (links stay)
    return next(folder for folder in folders if _tested_list(folder) in (None, tested))


def _tested_list(folder: Path) -> str | None:
    """Return the list whose results a folder has; None if there are no intact ones."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        return str(os.path.abspath(results["manifest"]))  # noqa: PTH100
    except DAMAGED_JSON:
        return None


def find_tested_checkpoint(config: Config) -> str:
    """Return the checkpoint that `test.checkpoint` names, by default the best of the run."""
    source = config.test.checkpoint
    if not source or (Path(source) / "checkpoints").is_dir():
        return str(find_checkpoint(Path(source or config.out_dir)))
    return source


def _align(manifest: Manifest, weights: Weights, checkpoint: str, config: Config) -> Manifest:
    manifest = align_label_count(manifest, weights.multi_label, of=checkpoint)
    return align_classes(
        manifest, weights.class_names, checkpoint=checkpoint, remap=config.test.remap_classes
    )


def check_classes(config: Config, weights: Weights, manifest: Manifest) -> int:
    """Return the number of classes of the checkpoint, after checking that everything agrees."""
    count = weights.num_classes
    if count is None:
        raise CheckpointError(
            f"{weights.source}: has no classification head, so it cannot be tested; fine-tune from "
            f"it first (model.pretrained={weights.source})"
        )
    if config.model.num_classes not in (None, count):
        raise CheckpointError(
            f"{weights.source}: has {count_of(count, 'class')}, "
            f"model.num_classes={config.model.num_classes}; "
            "leave model.num_classes unset or choose another checkpoint"
        )
    if count == 1 and not manifest.multi_label:
        raise CheckpointError(
            f"{weights.source}: has one class, so its accuracy says nothing; train on two or more"
        )
    manifest.require_labels_below(count, f"{weights.source} has")
    return count


def _make_store(
    folder: Path, config: Config, model: nn.Module, world: World, manifest: Manifest, compiled: bool
) -> EvalShardStore:
    views = [config.test.clips, config.test.crops]
    key = {**identity(config, model, world, views), "precision": config.test.precision}
    if compiled:
        key["compiled"] = True
    return EvalShardStore(folder / PARTIAL, key, manifest.records)


def identity(config: Config, model: nn.Module, world: World, views: list[int]) -> dict[str, Any]:
    """Return everything besides the video that determines the output for a view.

    A stored shard is reused only under an equal identity.

    Args:
        config: Configuration of the test.
        model: With its weights loaded.
        world: Its device.
        views: Number of clips and crops per video.
    """
    on_gpu = world.device.type == "cuda"
    return {
        "weights": weights_digest(model),
        "model": config.model.name,
        "input_size": list(config.input_size),
        "clip": asdict(config.clip),
        "normalise": [list(config.augment.mean), list(config.augment.std)],
        "views": views,
        "batch_size": config.test.batch_size,
        **config.data.decoding,
        "device": torch.cuda.get_device_name(world.device) if on_gpu else platform.machine(),
        "versions": [version(name) for name in ("torch", "torchvision", "av", "numpy")],
    }


def _check_predictions(predictions: Predictions, manifest: Manifest, config: Config) -> None:
    for video in predictions.unreadable:
        logger.warning("row %d is unreadable: %s", video.row, video.message)
    if not len(predictions.rows):
        raise ManifestError(
            f"{manifest.source}: none of its {count_of(len(manifest.records), 'video')} can be "
            "read; see above"
        )
    found, expected = predictions.logits.shape[1], config.test.clips * config.test.crops
    if found != expected:
        raise RuntimeError(f"computed {found} views per video instead of {expected}")


def _setup(config: Config, checkpoint: str, manifest: Manifest) -> EvalSetup:
    return EvalSetup(
        model=config.model.name,
        checkpoint=checkpoint,
        clips=config.test.clips,
        crops=config.test.crops,
        precision=config.test.precision,
        chosen_here=Path(checkpoint).name == "best"
        and is_validation_list(config, checkpoint, manifest),
    )


def is_validation_list(config: Config, checkpoint: str, manifest: Manifest) -> bool:
    """Return True if the run of `checkpoint` was validated on the videos of `manifest`."""
    try:
        val = json.loads((Path(checkpoint) / "meta.json").read_text())["lists"].get("val")
        return bool(val) and is_same_list(val, list_digest(manifest))
    except DAMAGED_JSON:  # of an earlier version
        return config.data.test in (None, config.data.val)


def _log_results(results: dict[str, Any], setup: EvalSetup, report: Path) -> None:
    metrics = "  ".join(
        f"{name} {results[name]:.2f}"
        for name in ("top1", "top5", "mean_class", "mAP")
        if name in results
    )
    evaluated, of = results["evaluated"], results["of"]
    logger.info("%s views: %s  (evaluated %d of %d)", setup.views, metrics, evaluated, of)
    if setup.chosen_here:
        logger.info(
            "this checkpoint was selected by its accuracy on the same list, so the result is "
            "optimistic; for an unbiased one set test.checkpoint=%s",
            Path(setup.checkpoint).with_name("last"),
        )
    logger.info("report: %s", report)
