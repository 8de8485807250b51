"""Multi-view tests against an independent implementation of the protocol.

It decodes with PyAV from the first frame on and uses plain loops; only the model is ours. The
probabilities of each video agree to 1e-6, for 5×3 views (Kinetics) and 2×3 (Something-Something).
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from hiera_video.data.dataset import TestViews
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.eval.evaluate import predict_views
from hiera_video.models.factory import create_model
from hiera_video.runtime.distributed import SINGLE_PROCESS
from hiera_video.video.encode import write_video

# fmt: off
VIDEOS = [  # fps, frames, height, width
    (12, 1, 40, 48), (12, 7, 48, 40), (12, 30, 36, 64), (15, 16, 33, 33), (15, 40, 64, 36),
    (15, 90, 50, 34), (24, 24, 40, 70), (24, 51, 70, 40), (24, 52, 34, 34), (25, 53, 48, 48),
    (25, 54, 36, 50), (25, 100, 60, 44), (30, 63, 40, 48), (30, 64, 48, 64), (30, 65, 64, 48),
    (30, 120, 38, 90), (50, 106, 40, 40), (50, 150, 42, 36), (60, 50, 40, 60), (60, 128, 36, 36),
    (60, 150, 32, 40),
]
# fmt: on
SIZE = 32


def decoded(path: str) -> tuple[list[np.ndarray], Fraction]:
    with av.open(path) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.average_rate is not None
        return frames, stream.average_rate


def dense_clips(count: int, fps: Fraction) -> list[list[int]]:
    """Return five clips of 16 frames that span 64 frames at 30 fps.

    The starts are a whole number of frames apart and the last clip ends with the video; a short
    video repeats its first and last frames.
    """
    span = 64 * fps / 30
    step = math.floor(max(count - span, Fraction(0)) / 4)
    clips = []
    for clip in range(5):
        times = [clip * step + (span - 1) * i / 15 for i in range(16)]
        clips.append(
            [math.floor(min(max(time, Fraction(0)), Fraction(count - 1))) for time in times]
        )
    return clips


def segment_clips(count: int) -> list[list[int]]:
    """Return VideoMAE's two clips: the starts and middles of 16 segments, sorted, alternating."""
    length = count / 16
    middles = [int(length / 2 + length * i) for i in range(16)]
    indices = sorted(middles + [int(length * i) for i in range(16)])
    return [indices[0::2], indices[1::2]]


def three_crops(frames: list[np.ndarray]) -> list[torch.Tensor]:
    """Scale the short side to the model's size; crop left, centre and right (or top to bottom)."""
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
    for position in range(3):
        top, left = math.ceil((new[0] - SIZE) / 2), math.ceil((new[1] - SIZE) / 2)
        free = max(new) - SIZE
        offset = (0, math.ceil(free / 2), free)[position]
        if new[0] > new[1]:
            top = offset
        else:
            left = offset
        crop = pixels[:, :, top : top + SIZE, left : left + SIZE]
        crops.append(crop.permute(1, 0, 2, 3).float())
    return crops


def write_manifest(folder: Path, videos: list[tuple[int, int, int, int]]) -> Manifest:
    """Write videos in which consecutive frames differ, with labels of three classes."""
    records = []
    for row, (fps, count, height, width) in enumerate(videos):
        path = folder / f"{row}.mp4"
        still = np.random.default_rng(row).integers(0, 255, (height, width, 3), dtype=np.uint8)
        frames = (np.roll(still, 3 * time, axis=(0, 1)[time % 2]) for time in range(count))
        write_video(path, frames, fps=fps, pixel_format="yuv444p" if height % 2 else "yuv420p")
        records.append(Record(path=str(path), label=row % 3, row=row))
    return Manifest(
        records=tuple(records), class_names=("a", "b", "c"), multi_label=False, source=str(folder)
    )


def sensitive_model() -> torch.nn.Module:
    """Return a micro Hiera with weights so large that views get different predictions."""
    torch.manual_seed(0)
    model = create_model("hiera_micro_16x32", num_classes=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                generator = torch.Generator().manual_seed(parameter.numel())
                parameter.normal_(std=0.1, generator=generator)
    return model


@pytest.mark.parametrize(
    "videos", [VIDEOS[1::5], pytest.param(VIDEOS, marks=pytest.mark.slow)], ids=["some", "all"]
)
@pytest.mark.parametrize(("sampling", "clips"), [("dense", 5), ("segments", 2)])
def test_probabilities_equal_an_independent_computation(
    tmp_path: Path, videos: list[tuple[int, int, int, int]], sampling: str, clips: int
) -> None:
    manifest, model = write_manifest(tmp_path, videos), sensitive_model()
    config = ClipConfig(num_frames=16, frame_stride=4, sampling=sampling)  # type: ignore[arg-type]
    transform = EvalTransform(SIZE, 3, (0.45,) * 3, (0.225,) * 3)
    dataset = TestViews(manifest, config, transform, num_clips=clips)
    predictions = predict_views(model, dataset, batch_size=8, workers=0, world=SINGLE_PROCESS)
    assert predictions.rows.tolist() == list(range(len(videos)))
    assert predictions.logits.shape == (len(videos), clips * 3, 3)
    probabilities = predictions.probabilities()
    spread = []
    for record in manifest.records:
        frames, fps = decoded(record.path)
        dense = sampling == "dense"
        indices = dense_clips(len(frames), fps) if dense else segment_clips(len(frames))
        crops = [crop for clip in indices for crop in three_crops([frames[i] for i in clip])]
        with torch.inference_mode():
            logits = model(torch.stack(crops)).double().tolist()
        views = [[math.exp(x) / sum(math.exp(y) for y in view) for x in view] for view in logits]
        expected = [sum(column) / len(views) for column in zip(*views)]
        assert probabilities[record.row] == pytest.approx(expected, abs=1e-6), record.path
        spread.append(max(max(column) - min(column) for column in zip(*views)))
    assert np.median(spread) > 1e-3  # the views of a video do differ
