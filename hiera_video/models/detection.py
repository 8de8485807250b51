"""Action detector: a Hiera that classifies boxes of its last feature map."""

from __future__ import annotations

import torch
from torch import Tensor

from hiera_video.errors import InputSizeError
from hiera_video.models.hiera import Hiera
from hiera_video.models.layout import HieraConfig

ROI_SIZE = 7
"""Places of a box along each axis, of which the head takes the maximum."""


class HieraDetector(Hiera):
    """Hiera that scores every class in every box, as in PySlowFast's detection.

    The tokens of the last map are normalised and averaged over time; RoIAlign reads 7×7 places of a
    box (aligned, as many samples a place as it has pixels), and the maximum of each channel goes
    through dropout and the linear layer. Names of parameters are the classifier's, so its weights
    load, and the head is newly initialised if the number of classes differs.

    Args:
        config: Sizes of the model, for video.
        checkpointing: Recompute each block in the backward pass to save memory.

    Raises:
        InputSizeError: The model is for images.
    """

    def __init__(self, config: HieraConfig, checkpointing: bool = False) -> None:
        if len(config.input_size) != 3:
            raise InputSizeError(
                f"input_size={list(config.input_size)}: actions are detected in video; choose a "
                "video model such as hiera_large_16x224"
            )
        super().__init__(config, checkpointing)
        self.pixels_per_place = int(self.feature_info[-1]["reduction"])
        """Pixels of the clip that a place of the last map stands for, 32."""

    def forward(
        self, clips: Tensor, path_draws: Tensor | None = None, boxes: Tensor | None = None
    ) -> Tensor:
        """Return the logits of each box; a sigmoid turns them into independent probabilities.

        Args:
            clips: [B, C, T, H, W], normalised.
            path_draws: As in `encode`.
            boxes: [N, 5], N may be 0: the index of a box's clip in the batch, and its left, top,
                right and bottom edge in pixels of the clip. None: one box for each clip, the whole
                of it.

        Returns:
            [N, K].

        Raises:
            InputSizeError: If `clips` or `boxes` do not fit the model.
        """
        from torchvision.ops import roi_align  # torchvision takes long to import

        if boxes is None:
            boxes = self._whole_clips(clips)
        if boxes.ndim != 2 or boxes.shape[1] != 5:
            raise InputSizeError(
                f"boxes are {list(boxes.shape)}; expected [N, 5]: clip, left, top, right, bottom"
            )
        features = self.norm(self.forward_features(clips, path_draws=path_draws)).mean(dim=1)
        places = roi_align(
            features.movedim(-1, 1).float(),  # [B, C, h, w]; half precision would round the edges
            boxes.float(),
            output_size=ROI_SIZE,
            spatial_scale=1 / self.pixels_per_place,
            sampling_ratio=0,
            aligned=True,
        )
        logits: Tensor = self.head(places.amax(dim=(2, 3)))
        return logits

    def _whole_clips(self, clips: Tensor) -> Tensor:
        boxes = torch.zeros(len(clips), 5, device=clips.device)
        boxes[:, 0] = torch.arange(len(clips), device=clips.device)
        boxes[:, 4], boxes[:, 3] = clips.shape[-2:]
        return boxes
