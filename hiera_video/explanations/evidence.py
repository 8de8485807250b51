"""Class evidence: the exact contribution of each token of the last map to a logit.

The head is mean → LayerNorm → linear layer. With the LayerNorm's deviation held at its value for
the clip, a logit is a sum over tokens plus a constant. A token of the last map has attended to the
whole clip, so its place is where the evidence lies, and not all that it was read from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hiera_video.errors import ConfigError
from hiera_video.models.hiera import Hiera


@dataclass(frozen=True, kw_only=True)
class ClassEvidence:
    """Contributions of tokens to the logit of one class of each clip."""

    maps: Tensor
    """[B, (t,) h, w] float32 in spatial order, in logits: above 0 for the class, below 0 against
    it. Its sum and `constant` add up to the logit of the target."""
    constant: Tensor
    """[B] the part of the logit that does not depend on the clip: the biases."""
    logits: Tensor
    """[B, K] all logits."""
    targets: Tensor
    """[B] index of the class."""


@torch.no_grad()
def class_evidence(model: nn.Module, clips: Tensor, targets: Tensor | None = None) -> ClassEvidence:
    """Return the contribution of each token of the last map to a logit.

    Args:
        model: A classifier in evaluation mode.
        clips: [B, C, T, H, W], or [B, C, H, W] for an image model; normalised.
        targets: [B] index of the class of each clip; by default the most likely one.

    Raises:
        ConfigError: The model is not a Hiera classifier with pooling.
    """
    model = require_classifier(model)
    features = model.forward_features(clips)
    logits: Tensor = model.forward_head(features).float()
    targets = logits.argmax(dim=1) if targets is None else targets
    # the sums are exact in float64, so that only the model's own rounding is left
    features, norm, layer = features.double(), model.norm, model.get_classifier()
    assert isinstance(layer, nn.Linear)
    tokens = features.flatten(1, -2)
    deviation = (tokens.mean(dim=1).var(dim=-1, unbiased=False) + norm.eps).sqrt()
    rows = layer.weight[targets].double()
    scale = rows * norm.weight.double() / (deviation * tokens.shape[1]).unsqueeze(1)
    centred = features - features.mean(dim=-1, keepdim=True)
    return ClassEvidence(
        maps=torch.einsum("b...c,bc->b...", centred, scale).float(),
        constant=(rows @ norm.bias.double() + layer.bias[targets].double()).float(),
        logits=logits,
        targets=targets,
    )


def require_classifier(model: nn.Module) -> Hiera:
    """Return `model` if it is a Hiera classifier that pools, or raise `ConfigError`."""
    if not (isinstance(model, Hiera) and model.num_classes and model.global_pool == "avg"):
        raise ConfigError(
            f"{type(model).__name__}: has no pooled logits to explain; give a Hiera classifier"
        )
    return model
