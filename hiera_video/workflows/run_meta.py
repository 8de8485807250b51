"""Classes of a trained model, as its checkpoint records them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from hiera_video.errors import CheckpointError
from hiera_video.utils.text_files import DAMAGED_JSON, is_text


@dataclass(frozen=True)
class RunMeta:
    """Content of a checkpoint's `meta.json` that inference reads."""

    num_classes: int | None
    class_names: tuple[str, ...] | None
    multi_label: bool


def read_run_meta(folder: Path, checkpoint: Path) -> RunMeta:
    """Read the `meta.json` of a checkpoint.

    Args:
        folder: Folder of the checkpoint, links followed.
        checkpoint: The same folder as the caller named it, for messages.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text())
        count, names = meta["model"]["num_classes"], meta["class_names"] or None
        if count is not None and (type(count) is not int or count < 1):
            raise ValueError(f"num_classes={count!r}")
        if names is not None and not (isinstance(names, list) and all(map(is_text, names))):
            raise ValueError("class_names: must be a list of texts")
    except DAMAGED_JSON as error:
        other = "best" if checkpoint.name == "last" else "last"
        raise CheckpointError(
            f"{checkpoint}: its meta.json is damaged ({error}); load the run's {other}"
        ) from error
    # the list of a masked pre-training or a custom task may name classes that are not the model's
    class_names = tuple(names) if names and count and len(names) <= count else None
    return RunMeta(count, class_names, bool(meta.get("multi_label")))
