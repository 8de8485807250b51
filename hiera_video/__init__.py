"""hiera-video: spatiotemporal Hiera end to end.

    import hiera_video as hv

    model = hv.create_model("hiera_base_16x224", num_classes=174)
    logits = model(clips)                            # [B, 3, 16, 224, 224] → [B, 174]
    hv.save_pretrained(model, "my_model")            # load it with hv.from_pretrained

    with hv.open_video("clip.mp4") as video:         # frames as uint8 [T, H, W, 3]
        frames = video.frames([0, 4, 8])

    run = hv.load("runs/x")                          # model, test transform, class names
    for prediction in hv.predict(run, "clip.mp4", topk=5):
        print(prediction.label, prediction.probability)
    hv.extract_features("runs/x", "videos/", "features/")

Public names are imported on first use, so `import hiera_video` does not load torch.
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
    from hiera_video.workflows.detect_boxes import DetectedActions, detect
    from hiera_video.workflows.explain import Explanation, explain
    from hiera_video.workflows.extract import extract_features
    from hiera_video.workflows.load_run import LoadedRun, Prediction, load, predict
    from hiera_video.workflows.segments import NamedSegment, predict_segments

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
    "Prediction": "hiera_video.workflows.load_run",
    "predict": "hiera_video.workflows.load_run",
    "predict_segments": "hiera_video.workflows.segments",
    "NamedSegment": "hiera_video.workflows.segments",
    "explain": "hiera_video.workflows.explain",
    "Explanation": "hiera_video.workflows.explain",
    "DetectedActions": "hiera_video.workflows.detect_boxes",
    "detect": "hiera_video.workflows.detect_boxes",
    "extract_features": "hiera_video.workflows.extract",
    "FeatureStore": "hiera_video.features.store",
}

__all__ = [
    "DetectedActions",
    "Explanation",
    "FeatureStore",
    "HieraVideoError",
    "LoadedRun",
    "MaeOutput",
    "NamedSegment",
    "Prediction",
    "create_model",
    "detect",
    "explain",
    "extract_features",
    "from_pretrained",
    "list_models",
    "load",
    "load_config",
    "open_video",
    "predict",
    "predict_segments",
    "read_manifest",
    "save_pretrained",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(
            f"module 'hiera_video' has no attribute '{name}'; it has {', '.join(__all__)}"
        )
    try:
        return getattr(importlib.import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:  # of an extra
        from hiera_video.errors import MissingPackageError
        from hiera_video.utils.extras import explain_missing

        message = explain_missing(error)
        if message is None:
            raise
        raise MissingPackageError(message) from error


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
