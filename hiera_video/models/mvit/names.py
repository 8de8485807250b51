"""Names of MViTv2 checkpoints of PySlowFast and torchvision, and tables of other sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

_PYSLOWFAST = (
    (re.compile(r"\.attn\.norm_([qkv])\."), r".attn.pool_\1.norm."),
    (re.compile(r"\.attn\.pool_([qkv])\.weight$"), r".attn.pool_\1.conv.weight"),
    (re.compile(r"\.attn\.rel_pos_([thw])$"), r".attn.rel_pos.\1"),
)
_TORCHVISION = (
    (re.compile(r"^conv_proj\."), "patch_embed.proj."),
    (re.compile(r"^pos_encoding\.class_token$"), "cls_token"),
    (re.compile(r"\.attn\.pool_([qkv])\.pool\.weight$"), r".attn.pool_\1.conv.weight"),
    (re.compile(r"\.attn\.pool_([qkv])\.norm_act\.0\."), r".attn.pool_\1.norm."),
    (re.compile(r"\.attn\.project\.0\."), ".attn.proj."),
    (re.compile(r"^(blocks\.\d+)\.project\."), r"\1.proj."),
    (re.compile(r"^(blocks\.\d+)\.mlp\.0\."), r"\1.mlp.fc1."),
    (re.compile(r"^(blocks\.\d+)\.mlp\.3\."), r"\1.mlp.fc2."),
    (re.compile(r"^head\.1\."), "head.projection."),
)
_TABLE = re.compile(r".*\.attn\.rel_pos\.[thw]")


def rename_from_mvit(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with our names for PySlowFast's or torchvision's MViTv2; others are kept."""
    rules = (*_TORCHVISION, *_PYSLOWFAST) if "conv_proj.weight" in state else _PYSLOWFAST
    renamed = {}
    for name, value in state.items():
        for pattern, ours in rules:
            name = pattern.sub(ours, name)
        renamed[name] = value.view(1, 1, -1) if name == "cls_token" else value
    return renamed


def resize_relative_positions(
    state: Mapping[str, Tensor], model: nn.Module
) -> tuple[dict[str, Tensor], list[str]]:
    """Interpolate tables of relative positions linearly to the model's lengths, as MViTv2 does.

    The last stage of an autoencoder is not pooled, so its tables are longer than a classifier's.

    Returns:
        The state, and a note if a table was interpolated.
    """
    resized, count = dict(state), 0
    for name, parameter in model.named_parameters():
        table = state.get(name)
        if table is None or not _TABLE.fullmatch(name) or table.ndim != 2:
            continue
        if len(table) != len(parameter) and table.shape[1:] == parameter.shape[1:]:
            rows = table.float().t().unsqueeze(0)
            longer = F.interpolate(rows, size=len(parameter), mode="linear")
            resized[name] = longer[0].t().to(table.dtype)
            count += 1
    notes = [f"{count} tables of relative positions interpolated"] if count else []
    return resized, notes
