"""Accuracy lost to int8: compare a float program and its quantised version on real clips."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from hiera_video.data.dataset import TestViews, UnreadableVideo
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import ConfigError, ExportError
from hiera_video.eval.class_names import align_classes
from hiera_video.export.program import Output, Program
from hiera_video.utils.text_files import count_of
from hiera_video.workflows.export_source import ExportSource

logger = logging.getLogger(__name__)
BATCH_SIZE = 8


def load_clips(
    source: ExportSource, videos: str | None, count: int
) -> tuple[Tensor, list[int | None]]:
    """Load the middle clip and centre crop of videos evenly spread over a list.

    Args:
        source: Model to load clips for.
        videos: Manifest or folder of videos.
        count: Number of videos; unreadable ones are skipped.

    Returns:
        Clips [N, C, T, H, W], and their labels; None for a video without exactly one label.

    Raises:
        ConfigError: If the model takes images or `videos` is None.
        ExportError: If no video can be read.
    """
    if source.clip is None:
        raise ConfigError(
            f"{source.name}: is an image model; --int8 measures accuracy on clips of videos"
        )
    if videos is None:
        raise ConfigError(
            "--int8: accuracy is measured on real clips; set --videos to a list or folder"
        )
    own = videos == source.data.val
    manifest = read_manifest(videos, **(source.data.list_options if own else {}))
    manifest = align_classes(manifest, source.class_names, checkpoint=source.weights, remap=True)
    transform = EvalTransform(
        source.model.config.input_size[1], 1, source.augment.mean, source.augment.std
    )
    views = TestViews(manifest, source.clip, transform, num_clips=1, decoder=source.data.backend)
    total = len(manifest.records)
    clips, labels = list[Tensor](), list[int | None]()
    for index in sorted({place * total // min(count, total) for place in range(min(count, total))}):
        video = views[index]
        if isinstance(video, UnreadableVideo):
            logger.warning("skipped: %s", video.message)
            continue
        label = manifest.records[index].label
        clips.append(video.views)
        labels.append(label if isinstance(label, int) else None)
    if not clips:
        raise ExportError(
            f"{videos}: none of its {count_of(total, 'video')} can be read; set --videos to "
            "another list"
        )
    return torch.cat(clips), labels


def compare_int8(
    exact: Program, quantised: Program, clips: Tensor, labels: list[int | None], *, output: Output
) -> dict[str, Any]:
    """Compare the outputs of a float and an int8 program.

    Args:
        exact: The float program.
        quantised: The int8 program.
        clips: [N, C, T, H, W].
        labels: Class of each clip, or None.
        output: The output that the programs compute.

    Returns:
        Differences; for logits also the top-1 agreement, and with labels the top-1 accuracy of each
        program, in percent; for features also their cosine similarity.
    """
    pairs = [(exact(part), quantised(part)) for part in torch.split(clips, BATCH_SIZE)]
    expected, actual = (torch.cat(outputs) for outputs in zip(*pairs))
    difference = (actual - expected).abs()
    facts: dict[str, Any] = {
        "clips": len(clips),
        "largest_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "largest_value": float(expected.abs().max()),
    }
    if output == "features":
        cosine = torch.nn.functional.cosine_similarity(expected.flatten(1), actual.flatten(1))
        facts |= {"mean_cosine": float(cosine.mean()), "lowest_cosine": float(cosine.min())}
    else:
        facts |= _compare_top1(expected, actual, labels)
    numbers = "  ".join(f"{name} {value:.4g}" for name, value in list(facts.items())[1:])
    logger.info("int8 on %d clips: %s", len(clips), numbers)
    return facts


def _compare_top1(expected: Tensor, actual: Tensor, labels: list[int | None]) -> dict[str, float]:
    first, second = expected.argmax(1), actual.argmax(1)
    facts = {"top1_agreement": 100 * float((first == second).float().mean())}
    known = [index for index, label in enumerate(labels) if label is not None]
    if known:
        truth = torch.tensor([labels[index] for index in known])
        facts["float_top1"] = 100 * float((first[known] == truth).float().mean())
        facts["int8_top1"] = 100 * float((second[known] == truth).float().mean())
    return facts
