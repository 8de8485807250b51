"""The `finetune` command: split, recipe, training and test of a small data set.

It writes lists and a configuration, and runs the workflows of `train` and `test` on them.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Manifest, as_tuple
from hiera_video.models.registry import config_for
from hiera_video.models.weights.load import read_weights
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.checks import require
from hiera_video.utils.text_files import count_of
from hiera_video.workflows.build import align_val, has_validation, read_split, resolve_num_classes
from hiera_video.workflows.finetune_config import Keys, check_keys, load_keys, merge_keys
from hiera_video.workflows.finetune_lists import RECIPE, ListRequest, SplitLists, make_lists
from hiera_video.workflows.finetune_pictures import augmented_clips
from hiera_video.workflows.finetune_recipe import (
    Device,
    Recipe,
    SetFacts,
    Weights,
    choose_recipe,
)
from hiera_video.workflows.test import run_test
from hiera_video.workflows.train import train_run
from hiera_video.workflows.visualize import schedule_plot

logger = logging.getLogger(__name__)
LISTS, CLIPS, RATES = "lists", "clips.png", "learning_rate.png"


@dataclass(frozen=True, kw_only=True)
class FinetuneRequest:
    """What the command is given."""

    lists: ListRequest
    start: Keys
    """Keys that follow from the weights, from `start_keys`."""
    overrides: tuple[str, ...]
    """The user's keys, as `key=value`."""
    output: Path
    """Folder of the run, and of the lists in it."""


def finetune(request: FinetuneRequest, manifest: Manifest, config: Config, *, dry_run: bool) -> int:
    """Divide the videos, choose a recipe, train and test; or stop after the plan.

    The same call resumes an interrupted training.

    Args:
        request: What the command is given.
        manifest: The videos, from `read_videos`.
        config: Preliminary configuration, from `check_keys`.
        dry_run: Write lists, recipe and pictures, and train nothing.

    Returns:
        The exit code of the training or of the test.

    Raises:
        ConfigError: The output is in use or has other lists.
        ManifestError: Too many videos are unreadable, or lists do not agree.
        CheckpointError: The weights cannot be read.
    """
    output, weights = request.output, kind_of_weights(config)
    lists = make_lists(request.lists, manifest, config, output / LISTS)
    data = {part: lists.files.get(part) for part in ("train", "val", "test")}
    where = merge_keys(
        request.start, {"data": {**data, "root": lists.root}, "out_dir": str(output)}
    )
    first = check_keys(where, request.overrides)
    train = read_split(first, "train")
    val = align_val(first, train, read_split(first, "val")) if has_validation(first) else None
    require(
        val is not None or first.train.early_stop is None,
        f"train.early_stop={first.train.early_stop}: needs validation videos, and of so few none "
        "are held out; give --val LIST, or leave it out",
    )
    given = {text.partition("=")[0] for text in request.overrides}
    own_batch = "train.batch_size" in given and not first.train.fit_memory
    recipe = choose_recipe(
        facts_of(train, val),
        weights,
        config_for(first.model.name),
        _device(),
        batch=first.train.batch_size if own_batch else None,
        epochs=first.train.epochs if "train.epochs" in given else None,
    )
    keys = merge_keys(where, recipe.keys)
    final = load_keys(output / RECIPE, keys, request.overrides)
    num_classes = resolve_num_classes(final, train, *([val] if val else []))
    tested = read_split(final, "test") if final.data.test else None
    print("\n".join(plan_lines(request, final, recipe, lists, train, val, tested)))
    if dry_run:
        write_atomic(output / CLIPS, augmented_clips(final, train, num_classes))
        write_atomic(output / RATES, schedule_plot(final))
        print(f"pictures: {output / CLIPS}, {output / RATES}; nothing trained")
        return 0
    code = train_run(final, train, val, num_classes)
    if code or tested is None:
        return code
    code = run_test(final, tested, dry_run=False)
    print("\n".join(closing_lines(output, tested.records[0].path)))
    return code


def kind_of_weights(config: Config) -> Weights:
    """Return what the model starts from; the weights are read.

    Raises:
        CheckpointError: They cannot be read.
    """
    source = config.model.pretrained
    if source in (None, "none"):
        return "none"
    found = read_weights(str(source), config.model.name)
    return "encoder" if found.num_classes is None else "classifier"


def facts_of(train: Manifest, val: Manifest | None) -> SetFacts:
    """Return what the recipe depends on."""
    sizes = Counter(label for record in train.records for label in as_tuple(record.label))
    return SetFacts(
        videos=len(train.records),
        class_sizes=tuple(sizes.values()),
        named=train.class_names is not None,
        multi_label=train.multi_label,
        validated=val is not None,
    )


def _device() -> Device:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Device(is_gpu=torch.cuda.is_available(), memory_bytes=pages * size)


def plan_lines(
    request: FinetuneRequest,
    config: Config,
    recipe: Recipe,
    lists: SplitLists,
    train: Manifest,
    val: Manifest | None,
    tested: Manifest | None,
) -> list[str]:
    """Return the plan, one line for each decision."""
    sizes = Counter(label for record in train.records for label in as_tuple(record.label))
    parts = [f"{len(train.records)} training"]
    parts += [f"{len(val.records)} validation"] if val else []
    parts += [f"{len(tested.records)} test"] if tested else []
    rows = [
        ("model", f"{config.model.name} from {config.model.pretrained or 'none'}"),
        ("videos", f"{', '.join(parts)}; {count_of(len(sizes), 'class')}"),
        *(("", note) for note in lists.notes),
        *recipe.reasons,
        ("files", f"{request.output / LISTS}, {request.output / RECIPE}"),
    ]
    if request.overrides:
        rows.append(("your keys", " ".join(request.overrides)))
    return [f"{subject:10} {text}" for subject, text in rows]


def closing_lines(output: Path, video: str) -> list[str]:
    """Return the accuracy on the held-out videos, the report and what to do next.

    Args:
        output: The run.
        video: A held-out video or folder of frames, to predict.
    """
    results: dict[str, Any] = json.loads((output / "results.json").read_text(encoding="utf-8"))
    score, run = "mAP" if "mAP" in results else "top1", shlex.quote(str(output))
    lines = [f"test       {score} {results[score]:.1f} % on {results['evaluated']} held-out videos"]
    if score == "top1" and "top1" in results.get("intervals", {}):
        low, high = results["intervals"]["top1"]
        lines[0] += f" (95 % interval {low:.1f} to {high:.1f})"
        lines[0] += f", mean of the classes {results['mean_class']:.1f} %"
    return [
        *lines,
        f"report     {output / 'report.html'}",
        "next",
        f"  hiera-video predict {shlex.quote(video)} --run {run}",
        f"  hiera-video test --run {run} data.test=LIST data.root=null",
        f"  hiera-video export --run {run} {shlex.quote(f'output={output}/model.pt2')}",
    ]
