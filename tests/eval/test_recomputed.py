"""The whole test computed again from the protocol's text: PyAV from the first frame, plain loops, none of our code but
the model. Per-video probabilities agree to 1e-6, for 5×3 (Kinetics) and 2×3 (Something-Something)."""

from __future__ import annotations

import math
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from hiera_video.data.dataset import TestViews
from hiera_video.data.manifest.record import Manifest
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.eval.evaluate import predict_views
from hiera_video.models.hiera import Hiera
from hiera_video.runtime.distributed import World

SIZE = 32


def decoded(path: str) -> tuple[list[np.ndarray], Fraction]:
    with av.open(path) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.average_rate is not None
        return frames, stream.average_rate


def dense_clips(count: int, fps: Fraction) -> list[list[int]]:
    """16 frames over 64 at 30 fps; five starts, whole frames apart, the last at the end; short videos repeat theirs."""
    span = 64 * fps / 30
    step = math.floor(max(count - span, Fraction(0)) / 4)
    clips = []
    for clip in range(5):
        places = [clip * step + (span - 1) * i / 15 for i in range(16)]
        clips.append(
            [math.floor(min(max(place, Fraction(0)), Fraction(count - 1))) for place in places]
        )
    return clips


def segment_clips(count: int) -> list[list[int]]:
    """VideoMAE's two views: starts and middles of sixteen segments, sorted, dealt out in turn."""
    tick = count / 16
    places = sorted(
        [int(tick / 2 + tick * x) for x in range(16)] + [int(tick * x) for x in range(16)]
    )
    return [places[0::2], places[1::2]]


def three_crops(frames: list[np.ndarray]) -> list[torch.Tensor]:
    """Short side scaled to the model's, bilinear; left, middle, right (top, middle, bottom) of the long side."""
    pixels = torch.tensor(np.stack(frames)).permute(0, 3, 1, 2).double()
    height, width = pixels.shape[2:]
    new = (height, width)
    if width < height and width != SIZE:
        new = (math.floor(height / width * SIZE), SIZE)
    if height <= width and height != SIZE:
        new = (SIZE, math.floor(width / height * SIZE))
    pixels = torch.nn.functional.interpolate(pixels, size=new, mode="bilinear", align_corners=False)
    pixels = (pixels / 255 - 0.45) / 0.225
    crops = []
    for place in range(3):
        top, left = math.ceil((new[0] - SIZE) / 2), math.ceil((new[1] - SIZE) / 2)
        free = max(new) - SIZE
        offset = (0, math.ceil(free / 2), free)[place]
        if new[0] > new[1]:
            top = offset
        else:
            left = offset
        crop = pixels[:, :, top : top + SIZE, left : left + SIZE]
        crops.append(crop.permute(1, 0, 2, 3).float())
    return crops


@pytest.mark.parametrize(("sampling", "clips"), [("dense", 5), ("segments", 2)])
def test_an_independent_computation_agrees(
    varied: Manifest, sensitive: Hiera, sampling: str, clips: int
) -> None:
    config = ClipConfig(num_frames=16, frame_stride=4, sampling=sampling)  # type: ignore[arg-type]
    views = TestViews(
        varied, config, EvalTransform(SIZE, 3, (0.45,) * 3, (0.225,) * 3), num_clips=clips
    )
    ours = predict_views(
        sensitive, views, batch_size=8, workers=0, world=World(0, 1, torch.device("cpu"))
    )
    assert ours.rows.tolist() == list(range(21)) and ours.logits.shape == (21, clips * 3, 3)
    found = ours.probabilities()
    spread = []
    for record in varied.records:
        frames, fps = decoded(record.path)
        indices = (
            dense_clips(len(frames), fps) if sampling == "dense" else segment_clips(len(frames))
        )
        crops = [
            crop for clip in indices for crop in three_crops([frames[index] for index in clip])
        ]
        with torch.inference_mode():
            logits = sensitive(torch.stack(crops)).double().tolist()
        shares = [[math.exp(x) / sum(math.exp(y) for y in view) for x in view] for view in logits]
        expected = [sum(column) / len(shares) for column in zip(*shares)]
        assert found[record.row] == pytest.approx(expected, abs=1e-6), record.path
        spread.append(max(max(column) - min(column) for column in zip(*shares)))
    assert (
        len(spread) == 21 and np.median(spread) > 1e-3
    )  # the views of a video do get different answers
