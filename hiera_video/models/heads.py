"""The classifier's head."""

from __future__ import annotations

from torch import Tensor, nn


class Head(nn.Module):
    """Dropout and a linear layer, [B, C] to logits [B, K], in training and in evaluation alike."""

    def __init__(self, dim: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(dim, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.projection(self.dropout(features))
        return logits
