"""What int8 costs: a float program and its quantised one on the same real clips."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hiera_video.data.dataset import TestViews, UnreadableVideo
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Record
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import ConfigError, ExportError
from hiera_video.eval.class_names import align_classes
from hiera_video.export.program import Output, Runner

if TYPE_CHECKING:
    from hiera_video.workflows.export import ExportSource

logger = logging.getLogger(__name__)
BATCH = 8


def real_clips(
    source: ExportSource, videos: str | None, count: int
) -> tuple[Tensor, list[int | None]]:
    """The middle clip and crop of `count` videos, evenly spread over the list, and their labels (None where a video has
    none or several). Raises `ConfigError` where there is no list, `ExportError` where none of them can be read."""
    if source.clip is None:
        raise ConfigError(
            f"{source.name}: is an image model; --int8 measures its loss on clips of videos"
        )
    if videos is None:
        raise ConfigError(
            "--int8: its loss is measured on real clips; name a list or folder with --videos"
        )
    own = videos == source.data.val
    manifest = read_manifest(
        videos,
        root=source.data.root if own else None,
        separator=source.data.separator if own else None,
    )
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
            logger.warning("left out: %s", video.message)
            continue
        clips.append(video.views)
        labels.append(_single(manifest.records[index]))
    if not clips:
        raise ExportError(
            f"{videos}: none of its {total} videos can be read; name others with --videos"
        )
    return torch.cat(clips), labels


def _single(record: Record) -> int | None:
    return record.label if isinstance(record.label, int) else None


def measure_loss(
    exact: Runner, rounded: Runner, clips: Tensor, labels: list[int | None], *, output: Output
) -> dict[str, Any]:
    """Differences of the two programs' answers; of logits, how often both name the same class, and with labels how often
    each is right; of features, their cosine."""
    pairs = [(exact(part), rounded(part)) for part in torch.split(clips, BATCH)]
    wanted, got = torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])
    gap = (got - wanted).abs()
    facts: dict[str, Any] = {
        "clips": len(clips),
        "largest_difference": float(gap.max()),
        "mean_difference": float(gap.mean()),
        "largest_value": float(wanted.abs().max()),
    }
    if output == "features":
        cosine = torch.nn.functional.cosine_similarity(wanted.flatten(1), got.flatten(1))
        facts |= {"mean_cosine": float(cosine.mean()), "lowest_cosine": float(cosine.min())}
        logger.info(
            "int8 on %d clips: cosine %.4f in the mean, %.4f at worst",
            len(clips),
            cosine.mean(),
            cosine.min(),
        )
        return facts
    first, second = wanted.argmax(1), got.argmax(1)
    facts["top1_agreement"] = 100 * float((first == second).float().mean())
    known = [index for index, label in enumerate(labels) if label is not None]
    if known:
        truth = torch.tensor([labels[index] for index in known])
        facts["float_top1"] = 100 * float((first[known] == truth).float().mean())
        facts["int8_top1"] = 100 * float((second[known] == truth).float().mean())
    logger.info(
        "int8 on %d clips: %s",
        len(clips),
        "  ".join(f"{name} {facts[name]:.4g}" for name in list(facts)[1:]),
    )
    return facts
