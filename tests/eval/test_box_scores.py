"""Scores of boxes: shards, padding and the crop of each box change nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hiera_video.data.dataset import UnreadableVideo
from hiera_video.data.detection.dataset import BoxViews, FrameCrops
from hiera_video.data.detection.key_frame import BoxManifest, KeyFrame
from hiera_video.data.sampling import ClipConfig
from hiera_video.errors import ManifestError
from hiera_video.eval.box_scores import FrameMAP, score_boxes
from hiera_video.eval.shards import EvalShardStore
from hiera_video.runtime.distributed import SINGLE_PROCESS
from hiera_video.video.encode import write_video

SIZE = 32


class Brightness(nn.Module):
    """A detector of two classes: bright boxes and dark ones."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, clips: Tensor, boxes: Tensor) -> Tensor:
        self.batches.append(len(clips))
        means = []
        for number, left, top, right, bottom in boxes.round().int().tolist():
            means.append(clips[number, :, :, top:bottom, left:right].mean())
        values = torch.stack(means) if means else torch.zeros(0)
        return torch.stack([values, -values], dim=1)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> BoxManifest:
    """A wide film with a white left half; key frames with 2, 0, 1 and 2 boxes."""
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    frames = np.zeros((20, 32, 96, 3), np.uint8)
    frames[:, :, :48] = 255
    write_video(path, frames, fps=10)
    left, right = (0.02, 0.1, 0.3, 0.9), (0.7, 0.1, 0.98, 0.9)
    records = tuple(
        KeyFrame(
            path=str(path),
            label=(0,),
            row=row,
            video="film",
            second=0.2 * row,
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=tuple((0,) if box == left else (1,) for box in boxes),
        )
        for row, boxes in enumerate(([left, right], [], [right], [right, left]))
    )
    return BoxManifest(
        records=records,
        class_names=("bright", "dark"),
        class_ids=(0, 1),
        multi_label=True,
        source="film.csv",
    )


def views(manifest: BoxManifest) -> BoxViews:
    clip = ClipConfig(num_frames=4, frame_stride=1, target_fps=None)
    return BoxViews(manifest, clip, FrameCrops(SIZE, 3, (0.45,) * 3, (0.225,) * 3))


def score(manifest: BoxManifest, **options: Any) -> Any:
    common: dict[str, Any] = {"batch_size": 3, "workers": 0, "world": SINGLE_PROCESS}
    model = options.pop("model", None) or Brightness()
    return score_boxes(model, views(manifest), **{**common, **options})


def test_every_box_is_scored_in_its_crop(manifest: BoxManifest) -> None:
    model = Brightness()
    found = score(manifest, model=model)
    assert [one.row for one in found.frames] == [0, 1, 2, 3]
    assert [scores.shape for scores in found.scores] == [(2, 2), (0, 2), (1, 2), (2, 2)]
    assert found.scores[0][0, 0] > 0.9 and found.scores[0][1, 0] < 0.2
    assert found.scores[3][1, 0] > 0.9 and found.scores[2][0, 1] > 0.8
    # shards of 3 and 1 key frames have 3 and 2 crops with boxes, in padded batches of 3
    assert model.batches == [3, 3] and found.boxes_outside == 0
    alone = score(manifest, batch_size=1)
    for ours, theirs in zip(found.scores, alone.scores):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_test_continues_after_its_last_shard(manifest: BoxManifest, tmp_path: Path) -> None:
    def store(records: Any = manifest.records) -> EvalShardStore:
        return EvalShardStore(tmp_path, {"weights": "x"}, records)

    whole = score(manifest, store=store())
    model = Brightness()
    again = score(manifest, store=store(), model=model)
    assert model.batches == []
    assert all(np.array_equal(a, b) for a, b in zip(whole.scores, again.scores))
    moved = replace(manifest.records[3], boxes=manifest.records[3].boxes[:1], labels=((1,),))
    changed = replace(manifest, records=(*manifest.records[:3], moved))
    found = score(changed, store=store(changed.records), model=model)
    assert len(model.batches) == 1 and len(found.scores[3]) == 1


def test_unreadable_key_frames_are_counted(manifest: BoxManifest, tmp_path: Path) -> None:
    missing = replace(manifest.records[1], path=str(tmp_path / "no.mp4"))
    broken = replace(manifest, records=(manifest.records[0], missing, *manifest.records[2:]))
    found = score(broken)
    assert [one.row for one in found.frames] == [0, 2, 3]
    (video,) = found.unreadable
    assert isinstance(video, UnreadableVideo) and (video.row, video.reason) == (1, "missing")


def test_the_evaluator(manifest: BoxManifest) -> None:
    def evaluator(scored: BoxManifest) -> FrameMAP:
        return FrameMAP(
            dataset=views(scored),
            truth=manifest,
            counted=(0, 1),
            batch_size=2,
            workers=0,
            world=SINGLE_PROCESS,
        )

    assert evaluator(manifest)(Brightness()) == {
        "mAP": 100.0,
        "box_accuracy": 100.0,
        "boxes": 5,
        "evaluated": 4,
        "of": 4,
    }
    assert evaluator(manifest).score == "mAP" and evaluator(manifest).higher_is_better
    nothing = replace(
        manifest, records=tuple(replace(one, path="no.mp4") for one in manifest.records)
    )
    data = evaluator(manifest)
    object.__setattr__(data.dataset, "records", nothing.records)
    with pytest.raises(
        ManifestError, match=r"film.csv: none of its key frames can be read; first error: no.mp4: "
    ):
        data(Brightness())
