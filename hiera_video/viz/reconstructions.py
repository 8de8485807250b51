"""Original, visible and reconstructed frames of clips in one picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

MAX_FRAMES, HEIGHT, GAP = 8, 96, 4


def reconstruction_sheet(
    pictures: tuple[Tensor, Tensor, Tensor], *, mean: Sequence[float], std: Sequence[float]
) -> bytes:
    """Return a PNG with three rows for each clip: original, visible and reconstructed frames.

    A row shows at most 8 frames, evenly spread, enlarged to a height of about 96 pixels.

    Args:
        pictures: Original, visible and reconstructed clips, each [B, 3, T, H, W] in normalised
            colours, as returned by `MaskedAutoencoderHiera.pictures`.
        mean: Mean of the normalisation, for each channel.
        std: Standard deviation of the normalisation, for each channel.
    """
    scale, shift = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (std, mean))
    colours = [(clips.cpu() * scale + shift).clamp(0, 1) for clips in pictures]
    blocks: list[NDArray[np.uint8]] = []
    for kinds in zip(*colours):
        rows = [_row(clip) for clip in kinds]
        if blocks:
            blocks.append(np.full((GAP * 3, rows[0].shape[1], 3), 255, np.uint8))
        blocks += rows
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(blocks)).save(buffer, format="PNG")
    return buffer.getvalue()


def _row(clip: Tensor) -> NDArray[np.uint8]:
    """Return the frames of a clip [3, T, H, W] side by side, with a gap to the right and below."""
    length, height = clip.shape[1:3]
    frames = clip[:, torch.linspace(0, length - 1, min(MAX_FRAMES, length)).long()]
    pixels = rearrange((frames * 255).round().byte(), "c t h w -> h t w c").numpy()
    factor = max(round(HEIGHT / height), 1)
    enlarged = pixels.repeat(factor, axis=0).repeat(factor, axis=2)
    padded = np.pad(enlarged, ((0, GAP), (0, 0), (0, GAP), (0, 0)), constant_values=255)
    return padded.reshape(padded.shape[0], -1, 3)
