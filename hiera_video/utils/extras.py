"""Optional packages: which extra installs them, and the line that says so."""

from __future__ import annotations

import importlib.util

from hiera_video.errors import MissingPackageError

EXTRAS = {
    "train": ("torchmetrics", "matplotlib", "jinja2"),  # and tensorboard, which runs do without
    "features": ("pyarrow", "fsspec"),
    "decord": ("decord",),
    "torchcodec": ("torchcodec",),
    "hub": ("huggingface_hub",),
    "slurm": ("submitit",),
    "ray": ("ray",),
    "search": ("faiss",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "wandb": ("wandb",),
    "demo": ("skimage", "sklearn"),
    "completion": ("argcomplete",),
    "app": ("gradio", "matplotlib"),
}
"""Extra → modules that it installs."""
PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn", "faiss": "faiss-cpu"}
"""Module → package, where the names differ."""


def require_extra(extra: str) -> None:
    """Check, without importing them, that the modules of an extra are installed.

    Raises:
        MissingPackageError: One is missing; the message is the line that installs it.
    """
    missing = [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPackageError(_message(missing, extra))


def explain_missing(error: ImportError) -> str | None:
    """Return the line that installs the module which `error` misses; None if no extra does."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if module in modules and isinstance(error, ModuleNotFoundError):
            return _message([module], extra)
    return None


def _message(modules: list[str], extra: str) -> str:
    names = ", ".join(PACKAGES.get(name, name) for name in modules)
    verb = "is" if len(modules) == 1 else "are"
    return f"{names} {verb} not installed; pip install 'hiera-video[{extra}]'"
