"""Classifier heads by other names: MMAction2's, and ones that only their shape reveals."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hiera_video.errors import CheckpointError
from hiera_video.models.weights.inflate import DECODER_PREFIXES

HEAD = "head.projection.weight"
CLASSIFIER = ("norm.", "head.")
FUSION = ("encoder_norm.", "multi_scale_fusion_heads.")
AUTOENCODER = (*FUSION, *DECODER_PREFIXES)
ENCODER = ("blocks.", "patch_embed.", "pos_embed")
_OURS, _MMACTION = "head.projection.", "cls_head.fc_cls."


def rename_from_mmaction(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return `state` with our name for the head of MMAction2's recogniser around a backbone.

    Args:
        state: Tensors by name.
        source: Name of the weights in messages.

    Raises:
        CheckpointError: If the backbone has a head of its own too.
    """
    names = [name for name in state if name.startswith(_MMACTION)]
    if names and HEAD in state:
        raise CheckpointError(
            f"{source}: has two heads, head.projection and cls_head.fc_cls; remove the one that "
            "the model does not use"
        )
    return {
        _OURS + name.removeprefix(_MMACTION) if name in names else name: value
        for name, value in state.items()
    }


def unnamed_heads(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the matrices that may be a head by another name, and their numbers of classes.

    They read the channels of the last norm. A state with a head or a decoder has none.
    """
    norm = state.get("norm.weight")
    if norm is None or any(name.startswith(("head.", *AUTOENCODER)) for name in state):
        return {}
    return {
        name: len(value)
        for name, value in state.items()
        if not name.startswith((*ENCODER, *CLASSIFIER))
        and value.ndim == 2
        and value.shape[1:] == norm.shape
    }
