"""Build a model from its configuration."""

from __future__ import annotations

from hiera_video.models.hiera import Hiera
from hiera_video.models.layout import HieraConfig
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.mvit.config import LadderConfig
from hiera_video.models.registry import MaeConfig
from hiera_video.models.vit.config import VitConfig


def build_model(
    config: HieraConfig, mae: MaeConfig | None = None, checkpointing: bool = False
) -> Hiera | MaskedAutoencoderHiera:
    """Build a newly initialised classifier, or a masked autoencoder if `mae` is given."""
    if isinstance(config, LadderConfig):
        # imported here, so that Hiera alone does not load the models it is compared with
        from hiera_video.models.mvit.models import LadderClassifier, MaskedAutoencoderLadder

        if mae is not None:
            return MaskedAutoencoderLadder(config, mae, checkpointing)
        return LadderClassifier(config, checkpointing)
    if isinstance(config, VitConfig):
        from hiera_video.models.vit.models import MaskedAutoencoderVit, VitClassifier

        if mae is not None:
            return MaskedAutoencoderVit(config, mae, checkpointing)
        return VitClassifier(config, checkpointing)
    if mae is not None:
        return MaskedAutoencoderHiera(config, mae, checkpointing)
    return Hiera(config, checkpointing)
