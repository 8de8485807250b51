"""Leaks: hidden mask units that change what a network computes for visible ones."""

from __future__ import annotations

import torch
from torch import Tensor

from hiera_video.models.mvit.models import LadderEncoder
from hiera_video.models.tokens import gather_rows, indices_of_true


@torch.no_grad()
def token_leaks(
    model: LadderEncoder, clips: Tensor, keep: Tensor, generator: torch.Generator | None = None
) -> list[Tensor]:
    """Return the change of each visible token after each stage when hidden tokens change.

    Every unit keeps its place, as kernels and windows over the clip need it to: visible units hold
    their own tokens, embedded without a hidden pixel, and hidden units random ones, drawn twice.
    Attention over the clip ignores hidden keys, as if they were deleted. What still differs
    between the two runs has leaked through a kernel or a window.

    Args:
        model: A rung in evaluation mode.
        clips: [B, C, (T,) H, W], normalised.
        keep: [B, units] bool, True = visible, the same number in each clip.
        generator: Source of the hidden tokens; torch's global one by default.

    Returns:
        One tensor [B, visible units, tokens of a unit] for each stage, in unit order: the largest
        change of a channel.
    """
    chosen = indices_of_true(keep, int(keep[0].sum()))
    visible = model.embed(clips, keep, chosen.shape[1])
    units = torch.arange(keep.shape[1], device=clips.device)[None]
    places = chosen[..., None, None].expand_as(visible)
    runs = []
    for _ in range(2):
        shape = (*keep.shape, *visible.shape[2:])
        hidden = torch.randn(shape, generator=generator).to(visible)
        outputs, _ = model.run_blocks(hidden.scatter(1, places, visible), units, visible=keep)
        runs.append([gather_rows(output, chosen) for output in outputs])
    return [(one - other).abs().amax(-1) for one, other in zip(*runs)]


def stage_leaks(
    model: LadderEncoder, clips: Tensor, keep: Tensor, generator: torch.Generator | None = None
) -> list[float]:
    """Return the largest of `token_leaks` in each stage; 0.0 is exact."""
    return [float(stage.max()) for stage in token_leaks(model, clips, keep, generator)]
