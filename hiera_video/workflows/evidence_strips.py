"""Film strips of a test's report with the evidence for a class over the frames."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn

from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Record
from hiera_video.errors import ConfigError
from hiera_video.explanations.evidence import class_evidence, require_classifier
from hiera_video.runtime.precision import autocast
from hiera_video.video.reader import Frames
from hiera_video.viz.overlays import as_pictures, overlay
from hiera_video.workflows.explain import middle_view


def evidence_drawer(
    config: Config, model: nn.Module, *, compiled: bool = False
) -> Callable[[Record, int], Frames] | None:
    """Return a function that draws the evidence for a class over the middle clip of a video.

    It is drawn relative to its mean over the clip, as most of a logit is common to all places.

    Args:
        config: Configuration of the test.
        model: The tested model, on its device.
        compiled: Its blocks are compiled; a batch of one clip would be compiled again.

    Returns:
        The function, or None if the model is no Hiera classifier that pools.
    """
    try:
        classifier = require_classifier(model)
    except ConfigError:
        return None
    augment = config.augment
    device = next(classifier.parameters()).device

    def draw(record: Record, target: int) -> Frames:
        clip, _ = middle_view(config, record)
        targets = torch.tensor([target], device=device)
        # only where it is needed: it imports the compiler, which takes seconds
        eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
        with autocast("fp32", device), eager:
            evidence = class_evidence(classifier, clip.unsqueeze(0).to(device), targets)
        maps = (evidence.maps[0] - evidence.maps[0].mean()).cpu().numpy()
        return overlay(as_pictures(clip, mean=augment.mean, std=augment.std), maps)

    return draw
