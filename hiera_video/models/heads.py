"""Classifier head."""

from __future__ import annotations

from torch import Tensor, nn


class ClassifierHead(nn.Module):
    """Dropout and a linear layer, [B, C] to logits [B, K]; with 0 classes, dropout alone."""

    def __init__(self, dim: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection: nn.Module = nn.Linear(dim, num_classes) if num_classes else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.projection(self.dropout(features))
        return logits
