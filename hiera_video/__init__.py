"""hiera-video: spatiotemporal Hiera end to end.

    import hiera_video as hv

    model = hv.create_model("hiera_base_16x224", num_classes=174)
    model(clips)                                     # [B, 174] logits

Names are imported when first used, so that `import hiera_video` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiera_video.config.load import load_config
    from hiera_video.data.manifest.read import read_manifest
    from hiera_video.errors import HieraVideoError
    from hiera_video.features.store import FeatureStore
    from hiera_video.models.factory import create_model, list_models
    from hiera_video.models.mae import MaeOutput
    from hiera_video.models.weights.load import from_pretrained
    from hiera_video.models.weights.save import save_pretrained
    from hiera_video.video import open_video
    from hiera_video.workflows.extract import extract_features
    from hiera_video.workflows.load_run import LoadedRun, load, predict

__version__ = "0.1.0"

_HOME = {
    "create_model": "hiera_video.models.factory",
    "from_pretrained": "hiera_video.models.weights.load",
    "list_models": "hiera_video.models.factory",
    "save_pretrained": "hiera_video.models.weights.save",
    "MaeOutput": "hiera_video.models.mae",
    "open_video": "hiera_video.video",
    "read_manifest": "hiera_video.data.manifest.read",
    "HieraVideoError": "hiera_video.errors",
    "load_config": "hiera_video.config.load",
    "load": "hiera_video.workflows.load_run",
    "LoadedRun": "hiera_video.workflows.load_run",
    "predict": "hiera_video.workflows.load_run",
    "extract_features": "hiera_video.workflows.extract",
    "FeatureStore": "hiera_video.features.store",
}

__all__ = [
    "FeatureStore",
    "HieraVideoError",
    "LoadedRun",
    "MaeOutput",
    "create_model",
    "extract_features",
    "from_pretrained",
    "list_models",
    "load",
    "load_config",
    "open_video",
    "predict",
    "read_manifest",
    "save_pretrained",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(
            f"module 'hiera_video' has no attribute '{name}'; it has {', '.join(__all__)}"
        )
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
