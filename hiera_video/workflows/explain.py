"""Maps of what a run bases its answer on: `hv.explain`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiera_video.data.dataset import UnreadableVideo, VideoViews
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.eval.class_names import output_names, quote_names
from hiera_video.explanations.evidence import class_evidence, require_classifier
from hiera_video.runtime.precision import autocast
from hiera_video.utils.checks import require
from hiera_video.viz.overlays import as_pictures
from hiera_video.workflows.build import make_views
from hiera_video.workflows.load_run import LoadedRun, as_record, load

Method = Literal["evidence"]
UNITS: dict[Method, str] = {"evidence": "logits"}
"""Method → unit of its maps."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a model bases its answer for one clip on, as returned by `explain`."""

    method: Method
    """The method that made the maps."""
    maps: NDArray[np.float32]
    """[t, h, w] over a token grid of the clip, in `unit`; each place covers T/t frames and an equal
    share of the picture."""
    unit: str
    """Unit of the maps; see `explain`."""
    frames: NDArray[np.uint8]
    """[T, S, S, 3] the frames of the clip as the model saw them, resized and cropped."""
    clip_seconds: tuple[float, float] | None
    """Start of the clip's first frame and end of its last; None for a clip without times."""
    target: int
    """Index of the class that is explained."""
    label: str
    """Name of that class, or its index as text."""
    logit: float
    """Its logit."""
    constant: float
    """Part of the logit that no place contributes: `maps.sum() + constant` is the logit."""


def explain(
    run: LoadedRun | str | Path,
    video: str | Path | Record,
    target: int | str | None = None,
    method: Method = "evidence",
) -> Explanation:
    """Return a map of what a trained run bases its answer for a video on.

    The clip is the middle one of the video and its crop the middle one of the run's test, so the
    maps and frames are those of one view. Everything is computed in float32.

    Methods:

    - `evidence`: the exact contribution of each token of the last map to the logit of the class,
      in logits; the sum of all and the constant is the logit (to 1e-5). [t, h, w] is the last map's
      grid, 8×7×7 for `hiera_base_16x224`. A token has attended to the whole clip: the map shows
      where the evidence lies, not all that it was read from.

    Args:
        run: A run from `load`, whose model may be on any device; or the folder of a run.
        video: Video file, folder of frames if the run was trained on those, or a record of a list,
            whose segment is then explained.
        target: Class to explain, by index or by name; by default the most likely one.
        method: One of the methods above.

    Raises:
        DecodeError: The video cannot be read.
        ConfigError: The run has no classes, or there is no such class or method.
    """
    if not isinstance(run, LoadedRun):
        run = load(run)
        run.model.to("cuda" if torch.cuda.is_available() else "cpu")
    require_classifier(run.model)
    _check_method(method)
    clip, seconds = middle_view(run, as_record(video))
    return explain_clip(run, clip, target, method, clip_seconds=seconds)


def explain_clip(
    run: LoadedRun,
    clip: Tensor,
    target: int | str | None = None,
    method: Method = "evidence",
    *,
    clip_seconds: tuple[float, float] | None = None,
) -> Explanation:
    """Explain one view that has been decoded already.

    Args:
        run: A run from `load`.
        clip: [3, T, S, S], normalised: one view of the run's transform.
        target: As for `explain`.
        method: As for `explain`.
        clip_seconds: Times of the clip, which the result repeats.

    Raises:
        ConfigError: The run has no classes, or there is no such class or method.
    """
    model = require_classifier(run.model)
    _check_method(method)
    names = output_names(run.class_names, model.num_classes)
    index = None if target is None else class_index(target, names)
    device = next(model.parameters()).device
    clips = clip.unsqueeze(0).to(device)
    with torch.inference_mode(), autocast("fp32", device):
        chosen = None if index is None else torch.tensor([index], device=device)
        evidence = class_evidence(model, clips, chosen)
    target = int(evidence.targets[0])
    augment = run.config.augment
    return Explanation(
        method=method,
        maps=evidence.maps[0].cpu().numpy(),
        unit=UNITS[method],
        constant=float(evidence.constant[0]),
        frames=as_pictures(clip, mean=augment.mean, std=augment.std),
        clip_seconds=clip_seconds,
        target=target,
        label=names[target],
        logit=float(evidence.logits[0, target]),
    )


def class_index(target: int | str, names: Sequence[str]) -> int:
    """Return the index of a class that is given by index or by name.

    Raises:
        ConfigError: There is no such class.
    """
    if isinstance(target, str):
        if target in names:
            return names.index(target)
        near = difflib.get_close_matches(target, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {quote_names(names)}"
        raise ConfigError(f"target={target!r}: no such class; {hint}")
    require(
        0 <= target < len(names),
        f"target={target}: no such class; choose an index from 0 to {len(names) - 1}, or a name",
    )
    return target


def middle_view(run: LoadedRun, record: Record) -> tuple[Tensor, tuple[float, float]]:
    """Decode the middle clip of a video, and return its middle crop and its times.

    Raises:
        DecodeError: The video cannot be read.
    """
    manifest = Manifest(records=(record,), class_names=None, multi_label=False, source=record.path)
    return view_of(make_views(run.config, manifest, clips=1, crops=run.config.test.crops)[0])


def view_of(video: VideoViews | UnreadableVideo) -> tuple[Tensor, tuple[float, float]]:
    """Return the middle crop [3, T, S, S] of a video's first clip, and the clip's times.

    Raises:
        DecodeError: The video cannot be read.
    """
    if isinstance(video, UnreadableVideo):
        raise DecodeError(video.message, reason=video.reason)
    top, left, height, width = video.crops.boxes[len(video.crops.boxes) // 2]
    clip = video.crops.clips[0, ..., top : top + height, left : left + width]
    return clip, video.clip_seconds[0]


def _check_method(method: str) -> None:
    if method not in UNITS:
        raise ConfigError(f"method={method!r}: choose one of {', '.join(UNITS)}")
