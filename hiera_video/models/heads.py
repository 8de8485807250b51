"""The classifier's head."""

from __future__ import annotations

from torch import Tensor, nn


class Head(nn.Module):
    """Dropout and a linear layer, [B, C] to logits [B, K], in training and in evaluation alike; of 0 classes, no layer."""

    def __init__(self, dim: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection: nn.Module = nn.Linear(dim, num_classes) if num_classes else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.projection(self.dropout(features))
        return logits
