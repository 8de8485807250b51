"""Names of VideoMAE's and MAE-ST's checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_QUERY_BIAS, _VALUE_BIAS = ".attn.q_bias", ".attn.v_bias"
_AUTOENCODER = (
    (re.compile(r"^norm\."), "encoder_norm."),
    (re.compile(r"^encoder_to_decoder\."), "decoder_embed."),
    (re.compile(r"^decoder\.blocks\."), "decoder_blocks."),
    (re.compile(r"^decoder\.norm\."), "decoder_norm."),
    (re.compile(r"^decoder\.head\."), "decoder_pred."),
)
_CLASSIFIER_HEAD = (re.compile(r"^head\.(?=weight$|bias$)"), "head.projection.")
_CLASSIFIER = ((re.compile(r"^fc_norm\."), "norm."), _CLASSIFIER_HEAD)
_PROJECTION = re.compile(r"(.+\.attn\.)q\.(weight|bias)")


def rename_from_videomae(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with our names for VideoMAE's; other states are kept.

    There, keys and the decoder's embedding have no bias; they get zeros. A bias of the keys changes
    no attention, so it has no effect in training either.

    Args:
        state: Tensors by name; those of an autoencoder's encoder without `encoder.`.
    """
    if not any(name.endswith(_QUERY_BIAS) for name in state):
        return dict(state)
    rules = _AUTOENCODER if "encoder_to_decoder.weight" in state else _CLASSIFIER
    renamed = {}
    for name, value in _join_biases(state).items():
        for pattern, ours in rules:
            name = pattern.sub(ours, name)
        renamed[name] = value
    embed = renamed.get("decoder_embed.weight")
    if embed is not None:
        renamed["decoder_embed.bias"] = embed.new_zeros(len(embed))
    return renamed


def _join_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join the biases of queries and values, with zeros for the keys between them."""
    joined = {}
    for name, value in state.items():
        attention = name.removesuffix(_QUERY_BIAS)
        if attention != name:
            values = state.get(attention + _VALUE_BIAS)
            if values is not None:
                value = torch.cat([value, torch.zeros_like(value), values])
            joined[f"{attention}.attn.qkv.bias"] = value
        elif not name.endswith(_VALUE_BIAS):
            joined[name] = value
    return joined


def rename_from_mae_st(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with our names for MAE-ST's; other states are kept.

    There, queries, keys and values have a matrix each, the class tokens positions of their own,
    which are added to them here, and the decoder a table for space and one for time, joined here.
    """
    if "cls_token" not in state or not any(_PROJECTION.fullmatch(name) for name in state):
        return dict(state)
    renamed = _join_projections(state)
    for ours, position in (
        ("cls_token", "pos_embed_class"),
        ("decoder_cls_token", "decoder_pos_embed_class"),
    ):
        if ours in renamed and position in renamed:
            renamed[ours] = renamed[ours] + renamed.pop(position)
    tables = ("decoder_pos_embed_spatial", "decoder_pos_embed_temporal")
    if all(name in renamed and renamed[name].ndim == 3 for name in tables):
        space, time = (renamed.pop(name) for name in tables)
        renamed["decoder_pos_embed"] = (space.unsqueeze(1) + time.unsqueeze(2)).flatten(1, 2)
    pattern, ours = _AUTOENCODER[0] if "mask_token" in state else _CLASSIFIER_HEAD
    return {pattern.sub(ours, name): value for name, value in renamed.items()}


def _join_projections(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join the matrices and biases of queries, keys and values."""
    joined = dict(state)
    for name in state:
        found = _PROJECTION.fullmatch(name)
        if found:
            attention, kind = found.groups()
            parts = [f"{attention}{part}.{kind}" for part in "qkv"]
            if all(part in joined for part in parts):
                values = [joined.pop(part) for part in parts]
                joined[f"{attention}qkv.{kind}"] = torch.cat(values)
    return joined
