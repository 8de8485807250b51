"""Maps of what a run bases its answer on: `hv.explain`."""

from __future__ import annotations

import difflib
import logging
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hiera_video.config.schema import Config
from hiera_video.data.dataset import UnreadableVideo, VideoViews
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.errors import ConfigError, DecodeError, FeatureError
from hiera_video.eval.class_names import output_names, quote_names
from hiera_video.explanations.attention import query_attention
from hiera_video.explanations.colours import fit_colours
from hiera_video.explanations.evidence import class_evidence, require_classifier
from hiera_video.explanations.occlusion import unit_occlusion
from hiera_video.explanations.rollout import attention_rollout
from hiera_video.models.weights.digest import weights_digest
from hiera_video.runtime.precision import autocast
from hiera_video.utils.checks import require
from hiera_video.video.arguments import describe
from hiera_video.video.options import ShardVideo
from hiera_video.viz.overlays import as_pictures
from hiera_video.workflows.build import make_views
from hiera_video.workflows.load_run import (
    LoadedRun,
    as_record,
    require_classes,
    require_dtype,
    to_loaded_run,
)

logger = logging.getLogger(__name__)
Method = Literal["evidence", "occlusion", "rollout", "attention", "colours"]
UNITS: dict[Method, str] = {
    "evidence": "logits",
    "occlusion": "logits",
    "rollout": "share",
    "attention": "share",
    "colours": "colour",
}
"""Method → unit of its maps."""
CAVEATS: dict[Method, str] = {
    "occlusion": "the classifier was trained on whole clips, so its answers for parts of one are "
    "beyond its training",
    "rollout": "an approximation, the same for every class: pooling is not linear, and values and "
    "MLPs are left out",
}
"""Method → what its maps do not show."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a model bases its answer for one clip on, as returned by `explain`."""

    method: Method
    """The method that made the maps."""
    maps: NDArray[np.float32]
    """[t, h, w] over a token grid of the clip, in `unit`; with `colours`, [t, h, w, 3]. Each place
    covers T/t frames and an equal share of the picture."""
    unit: str
    """`logits`, `share` (of attention; sums to 1) or `colour` (RGB in [0, 1]); see `explain`."""
    constant: float | None
    """With `evidence`, the logit less `maps.sum()`: the biases, which no place contributes."""
    standard_error: NDArray[np.float32] | None
    """With `occlusion`, the standard error of `maps`."""
    frames: NDArray[np.uint8]
    """[T, S, S, 3] the frames of the clip as the model saw them, resized and cropped."""
    clip_seconds: tuple[float, float] | None
    """Start of the clip's first frame and end of its last; None for a clip without times."""
    target: int
    """Index of the class that is explained."""
    label: str
    """Name of that class, or its index as text."""
    logit: float
    """Its logit for the clip."""
    probability: float
    """Its probability for the clip."""


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """Settings of the methods of `explain`; each is read by the methods that it names."""

    draws: int = 512
    """`occlusion`: random sets of mask units, each of which costs half a forward pass."""
    stage: int | None = None
    """`colours`: stage of the map, counted from 1; by default the last."""
    store: str | Path | None = None
    """`colours`: feature store of the same weights, whose windows fix the colours, so that clips
    are comparable; by default, the clip's own places do."""
    block: int = -1
    """`attention`: number of the block, from 0, or from the end if negative."""
    query: tuple[int, ...] | None = None
    """`attention`: place (t, h, w) of the query on the block's output map."""


def explain(
    run: LoadedRun | str | Path,
    video: str | Path | Record | ShardVideo,
    target: int | str | None = None,
    method: Method = "evidence",
    **options: Any,
) -> Explanation:
    """Return a map of what a trained run bases its answer for a video on.

    The clip is that of a test with one clip, by default the middle of the video, and the crop is
    the middle one of the run's test. Everything is computed in float32.

    Methods, with the grid of `hiera_base_16x224`:

    - `evidence`, 8×7×7: the exact contribution of each token of the last map to the logit of the
      class, in logits; the sum of all and `constant` is the logit (to 1e-5). A token has attended
      to the whole clip: the map shows where the evidence lies, not all that it was read from.
    - `occlusion`, 8×7×7: the logit when a mask unit is shown less that when it is hidden, over
      random sets of hidden units, which the model leaves out. The classifier was trained on whole
      clips, and a warning says so.
    - `rollout`, 8×56×56: the share of attention that each token of stage 1 receives, followed back
      through all blocks. An approximation, and the same for every class.
    - `attention`: the weights with which one query of a block attends to the places of its input.
    - `colours`: the first three principal components of a stage's map as red, green and blue.

    Args:
        run: A run from `load`, whose model may be on any device; or the folder of a run.
        video: Video file, folder of frames if the run was trained on those, a record of a list,
            whose segment is then explained, or a video in a shard.
        target: Class to explain, by index or by name; by default the most likely one.
        method: One of the methods above.
        options: Fields of `ExplainOptions`, such as `draws=2048` or `query=(4, 3, 3)`.

    Raises:
        DecodeError: The video cannot be read.
        ConfigError: The run has no classes, there is no such class, method or option, or an
            argument is of another kind.
        FeatureError: The store is damaged, or of other weights.
    """
    _check(method, options)
    record = as_record(video)
    run = to_loaded_run(run)
    require_classes(run)
    clip, seconds = middle_view(run.config, record)
    if method == "occlusion":
        logger.warning("occlusion: %s", CAVEATS[method])
    return explain_clip(run, clip, target, method, clip_seconds=seconds, **options)


def explain_clip(
    run: LoadedRun,
    clip: Tensor,
    target: int | str | None = None,
    method: Method = "evidence",
    *,
    clip_seconds: tuple[float, float] | None = None,
    **options: Any,
) -> Explanation:
    """Explain one view that has been decoded already.

    Args:
        run: A run from `load`.
        clip: [3, T, S, S], normalised: one view of the run's transform.
        target: As for `explain`.
        method: As for `explain`.
        clip_seconds: Times of the clip, which the result repeats.
        options: As for `explain`.

    Raises:
        ConfigError: The run has no classes, or there is no such class, method or option.
        FeatureError: The store is damaged, or of other weights.
    """
    model = require_classifier(run.model)
    require_dtype(model, "fp32")
    _check(method, options)
    names = output_names(run.class_names, model.num_classes)
    index = None if target is None else class_index(target, names)
    device = next(model.parameters()).device
    clips = clip.unsqueeze(0).to(device)
    error = None
    with torch.inference_mode(), autocast("fp32", device):
        chosen = None if index is None else torch.tensor([index], device=device)
        evidence = class_evidence(model, clips, chosen)
        target = int(evidence.targets[0])
        maps = evidence.maps[0]
        if method != "evidence":
            maps, error = _compute(run, clips, target, method, ExplainOptions(**options))
    probabilities = evidence.logits.sigmoid() if run.multi_label else evidence.logits.softmax(1)
    augment = run.config.augment
    return Explanation(
        method=method,
        maps=maps.cpu().numpy(),
        unit=UNITS[method],
        constant=float(evidence.constant[0]) if method == "evidence" else None,
        standard_error=None if error is None else error.numpy(),
        frames=as_pictures(clip, mean=augment.mean, std=augment.std),
        clip_seconds=clip_seconds,
        target=target,
        label=names[target],
        logit=float(evidence.logits[0, target]),
        probability=float(probabilities[0, target]),
    )


def _compute(
    run: LoadedRun, clips: Tensor, target: int, method: Method, options: ExplainOptions
) -> tuple[Tensor, Tensor | None]:
    """Return the maps of a method other than `evidence`, and their standard error if it has one."""
    model = require_classifier(run.model)
    if method == "occlusion":
        found = unit_occlusion(
            model, clips[0], target, draws=options.draws, batch_size=run.config.test.batch_size
        )
        return found.maps, found.standard_error
    if method == "rollout":
        return attention_rollout(model, clips)[0], None
    if method == "attention":
        if options.query is None:
            raise ConfigError("query= is not set; name a place (t, h, w) of the block's output map")
        require(
            isinstance(options.query, Sequence),
            f"query={describe(options.query)}: must be a place (t, h, w) of the block's output map",
        )
        return query_attention(model, clips, options.query, options.block)[0], None
    count = len(model.stages)
    stage = count if options.stage is None else options.stage
    is_stage = isinstance(stage, int) and 1 <= stage <= count
    require(is_stage, f"stage={describe(stage)}: this model has stages 1 to {count}")
    (features,) = model.forward_intermediates(clips, indices=[stage - 1])
    if options.store is None:
        basis = fit_colours(features.flatten(0, -2))
    else:
        basis = fit_colours(_store_features(model, options.store, stage))
    return basis.colours(features[0]), None


def _store_features(model: nn.Module, store: str | Path, stage: int) -> Tensor:
    """Return the features [N, C] of one stage in a store, which must have the model's weights."""
    from hiera_video.features.store import FeatureStore

    opened, digest = FeatureStore(store), weights_digest(model)
    recorded = str(opened.metadata["identity"].get("weights"))
    if recorded != digest:
        raise FeatureError(
            f"store={store}: has other weights ({recorded[:12]}…) than the run ({digest[:12]}…), "
            "so colours cannot be compared; extract with this run"
        )
    matrix = opened.matrix(f"stage{stage}")
    return matrix.float().view(-1, matrix.shape[-1])


def class_index(target: int | str, names: Sequence[str]) -> int:
    """Return the index of a class that is given by index, also as text, or by name.

    Raises:
        ConfigError: There is no such class.
    """
    if isinstance(target, str):
        if target in names:
            return names.index(target)
        if target.isdecimal():
            return class_index(int(target), names)
        near = difflib.get_close_matches(target, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {quote_names(names)}"
        raise ConfigError(f"target={target!r}: no such class; {hint}")
    try:
        index = operator.index(target)
    except TypeError:
        index = -1
    require(
        0 <= index < len(names),
        f"target={describe(target)}: no such class; choose an index from 0 to {len(names) - 1}, or "
        "a name",
    )
    return index


def middle_view(config: Config, record: Record) -> tuple[Tensor, tuple[float, float]]:
    """Decode the middle clip of a video, and return its middle crop and its times.

    Raises:
        DecodeError: The video cannot be read.
    """
    manifest = Manifest(records=(record,), class_names=None, multi_label=False, source=record.path)
    return view_of(make_views(config, manifest, clips=1, crops=config.test.crops)[0])


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


def _check(method: str, options: Mapping[str, Any]) -> None:
    if not isinstance(method, str) or method not in UNITS:
        raise ConfigError(f"method={method!r}: choose one of {', '.join(UNITS)}")
    known = ExplainOptions.__dataclass_fields__
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(f"unknown option {unknown[0]!r}; choose from {', '.join(known)}")
