"""Find the persons of key frames with a torchvision detector whose weights are on disk."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from hiera_video.data.detection.key_frame import BoxManifest, KeyFrame
from hiera_video.data.detection.key_frame_clip import frame_at
from hiera_video.errors import CheckpointError, ConfigError, DecodeError
from hiera_video.utils.atomic_files import publish, sync
from hiera_video.utils.resumable import exclusive
from hiera_video.utils.text_files import csv_field
from hiera_video.video import open_video
from hiera_video.video.options import Backend

PERSON = 1
"""Index of COCO's person in torchvision's detectors."""
MIN_SCORE = 0.05
"""Lowest score that is written; `detect.min_score` chooses among these."""

Detector = Callable[[list[Tensor]], list[dict[str, Tensor]]]
"""Maps pictures float32 [3, H, W] in [0, 1] to their `boxes` in pixels, `labels` and `scores`."""


def load_detector(name: str, weights: Path) -> nn.Module:
    """Load a detector of torchvision, onto the GPU if there is one.

    Args:
        name: torchvision's name, such as `fasterrcnn_resnet50_fpn`.
        weights: File with its state dict.

    Raises:
        ConfigError: torchvision has no detector of this name, or there is no such file.
        CheckpointError: The file has no weights, or those of another detector.
    """
    from torchvision.models import detection, list_models

    known = list_models(detection)
    if name not in known:
        raise ConfigError(f"--detector {name}: unknown; choose one of {', '.join(known)}")
    if not weights.is_file():
        raise ConfigError(
            f"--detector-weights {weights}: no such file; download torchvision's weights of {name}"
        )
    model: nn.Module = getattr(detection, name)(weights=None, weights_backbone=None)
    try:
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except (RuntimeError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"--detector-weights {weights}: are not weights of {name} ({reason}); name their "
            "detector with --detector"
        ) from error
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def find_persons(
    detector: Detector,
    manifest: BoxManifest,
    target: Path,
    *,
    start_seconds: float,
    decoder: Backend = "pyav",
) -> int:
    """Write the persons of each key frame as `video,second,x1,y1,x2,y2,score` lines.

    A key frame without any is a `video,second` line. An interrupted call continues where it
    stopped: finished key frames are in a hidden file beside `target`.

    Args:
        detector: Finds persons.
        manifest: The key frames.
        target: File to write.
        start_seconds: As in `detect.start_seconds`.
        decoder: Reads the frames.

    Returns:
        The number of boxes.

    Raises:
        ConfigError: Another process writes `target`.
        DecodeError: A key frame cannot be read.
    """
    busy = f"{target}: another command is writing it; wait for its end"
    with exclusive(target.with_name(f".{target.name}.lock"), busy):
        return _find_persons(detector, manifest, target, start_seconds, decoder)


def _find_persons(
    detector: Detector, manifest: BoxManifest, target: Path, start_seconds: float, decoder: Backend
) -> int:
    unfinished = target.with_name(f".{target.name}.unfinished")
    text = unfinished.read_text(encoding="utf-8") if unfinished.exists() else ""
    blocks = text.split("\n\n")[:-1]  # the last one may be incomplete
    records = manifest.records
    if not all(each.startswith(_start(record)) for each, record in zip(blocks, records)):
        blocks = []  # of another list
    with unfinished.open("w", encoding="utf-8") as file:
        file.writelines(f"{block}\n\n" for block in blocks)
        for record in tqdm(records[len(blocks) :], desc="finding persons", unit="key frame"):
            found = _persons(detector, _read_frame(record, start_seconds, decoder))
            lines = [
                ",".join([_start(record), *(f"{edge:.3f}" for edge in edges), f"{score:.4f}"])
                for *edges, score in found.tolist()
            ]
            blocks.append("\n".join(lines or [_start(record)]))
            file.write(f"{blocks[-1]}\n\n")
            file.flush()
    unfinished.write_text("".join(f"{block}\n" for block in blocks), encoding="utf-8")
    sync(unfinished)
    publish(unfinished, target)
    return sum(line.count(",") > 1 for block in blocks for line in block.splitlines())


def _start(record: KeyFrame) -> str:
    return f"{csv_field(record.video)},{record.second!r}"


def _read_frame(record: KeyFrame, start_seconds: float, decoder: Backend) -> NDArray[np.uint8]:
    with open_video(record.source, decoder) as video:
        index = frame_at(video.times, video.fps, record.second - start_seconds)
        if index is None:
            raise DecodeError(
                f"{record.where}: second {record.second:g} lies outside {record.path}; correct "
                "the line, or remove it",
                reason="empty_window",
            )
        (frame,) = video.frames([index])
        return np.asarray(frame)


@torch.inference_mode()
def _persons(detector: Detector, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return left, top, right, bottom as shares of the frame, and the score of each person."""
    height, width = frame.shape[:2]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    picture = torch.from_numpy(np.ascontiguousarray(frame)).to(device).movedim(-1, 0) / 255
    (found,) = detector([picture])
    chosen = (found["labels"] == PERSON) & (found["scores"] >= MIN_SCORE)
    sides = torch.tensor([width, height, width, height], device=device)
    edges = (found["boxes"][chosen] / sides).clamp(0, 1)
    return torch.cat([edges, found["scores"][chosen, None]], dim=1).cpu().numpy()
