"""Initial weights: truncated normal or Xavier, as in the authors' classifiers and autoencoders."""

from __future__ import annotations

import torch
from torch import nn

from hiera_video.models.heads import ClassifierHead
from hiera_video.models.layout import HieraConfig


@torch.no_grad()
def init_weights(model: nn.Module, config: HieraConfig) -> None:
    """Draw every initial weight from torch's global generator; see `HieraConfig.init`."""
    for name, parameter in model.named_parameters():
        if name.startswith("pos_embed"):
            nn.init.trunc_normal_(parameter, std=0.02)
    for module in model.modules():
        _init_module(module, config)
    weight = model.get_parameter("patch_embed.proj.weight")
    if config.init == "xavier":
        # as if the patch embedding were a linear layer on flattened patches
        nn.init.xavier_uniform_(weight.view(weight.shape[0], -1))
    else:
        nn.init.trunc_normal_(weight, std=0.02)
    head = getattr(model, "head", None)
    if isinstance(head, ClassifierHead):
        _scale_head(head, config)


def init_head(head: ClassifierHead, config: HieraConfig) -> None:
    """Draw the initial weights of a new head from torch's global generator."""
    _init_module(head.projection, config)
    _scale_head(head, config)


@torch.no_grad()
def _init_module(module: nn.Module, config: HieraConfig) -> None:
    bias = 0.0 if config.init == "xavier" else 0.02
    if isinstance(module, nn.Linear):
        if config.init == "xavier":
            nn.init.xavier_uniform_(module.weight)
        else:
            nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.constant_(module.bias, bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.constant_(module.bias, bias)


@torch.no_grad()
def _scale_head(head: ClassifierHead, config: HieraConfig) -> None:
    for parameter in head.parameters():
        parameter.mul_(config.head_init_scale)
