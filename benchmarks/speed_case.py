"""One case of the speed benchmark: model, input shape, precision and device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from hiera_video.models.layout import HieraConfig
from hiera_video.models.registry import MaeConfig, config_for, default_mae

Mode = Literal["model", "train", "mae"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to measure."""

    mode: Mode
    """Inference, a fine-tuning step, or a masked pre-training step; steps are forward and
    backward."""
    size: str
    """A key of `SIZES`, or micro."""
    images: bool = False
    """Image models instead of video models."""
    frames: int = 16
    """Frames of a clip."""
    resolution: int = 224
    """Height and width in pixels."""
    batch: int = 1
    """Clips, or images, of a step."""
    dtype: str = "float32"
    """Other than float32: weights are cast for inference, steps with a backward pass use
    autocast."""
    device: str = "cpu"
    """cpu or cuda."""
    compiled: bool = False
    """torch.compile for ours, the reference and hiera-optim (in its documented graph-safe mode)."""

    @property
    def name(self) -> str:
        """Name of the model in `create_model`."""
        shape = "16x32" if self.size == "micro" else "224" if self.images else "16x224"
        return f"{'mae_' if self.mode == 'mae' else ''}hiera_{self.size}_{shape}"

    @property
    def input_size(self) -> tuple[int, ...]:
        """(frames, height, width), or (height, width)."""
        size = (self.resolution, self.resolution)
        return size if self.images else (self.frames, *size)

    @property
    def config(self) -> HieraConfig:
        """Configuration of the encoder."""
        return config_for(self.name, input_size=self.input_size)

    def mae(self, half: bool = False) -> MaeConfig | None:
        """Return the decoder's configuration, or None for a classifier.

        With `half`, half of the hidden tokens are decoded.
        """
        if self.mode != "mae":
            return None
        full = default_mae(self.name)
        return replace(full, decoder_tokens="running_cell", decoder_share=0.5) if half else full
