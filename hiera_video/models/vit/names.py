"""Names of VideoMAE's checkpoints."""

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
_CLASSIFIER = (
    (re.compile(r"^fc_norm\."), "norm."),
    (re.compile(r"^head\.(?=weight$|bias$)"), "head.projection."),
)


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
