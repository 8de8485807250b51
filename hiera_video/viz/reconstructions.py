"""Original, visible and reconstructed frames of clips, one picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

FRAMES, HEIGHT, GAP = 8, 96, 4


def reconstruction_sheet(
    pictures: tuple[Tensor, Tensor, Tensor], *, mean: Sequence[float], std: Sequence[float]
) -> bytes:
    """PNG: for each clip three rows (original, visible, reconstructed), at most 8 frames across.

    `pictures`: three tensors [B, 3, T, H, W] in normalised colours, as `MaskedAutoencoderHiera.pictures` gives them.
    """
    scale, shift = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (std, mean))
    rows = []
    for clips in zip(*((kind.cpu() * scale + shift).clamp(0, 1) for kind in pictures)):
        for clip in clips:
            frames = clip[
                :, torch.linspace(0, clip.shape[1] - 1, min(FRAMES, clip.shape[1])).long()
            ]
            rows.append(rearrange((frames * 255).round().byte(), "c t h w -> h t w c").numpy())
        rows.append(None)
    height = rows[0].shape[0]
    factor = max(round(HEIGHT / height), 1)
    lines: list[NDArray[np.uint8]] = []
    for row in rows[:-1]:
        if row is None:  # between two clips
            lines.append(np.full((GAP * 3, lines[0].shape[1], 3), 255, np.uint8))
            continue
        large = row.repeat(factor, axis=0).repeat(factor, axis=2)
        padded = np.pad(large, ((0, GAP), (0, 0), (0, GAP), (0, 0)), constant_values=255)
        lines.append(padded.reshape(padded.shape[0], -1, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(lines)).save(buffer, format="PNG")
    return buffer.getvalue()
