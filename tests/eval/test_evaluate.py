"""Evaluators: metrics of the readable videos, and errors without any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hiera_video.data.dataset import TestViews, UnreadableVideo, VideoViews
from hiera_video.data.manifest.record import Label, Manifest, Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import ManifestError
from hiera_video.eval.evaluate import Accuracy, predict_views, score
from hiera_video.eval.reconstruct import Reconstruction
from hiera_video.eval.views import Predictions
from hiera_video.models.factory import create_model
from hiera_video.runtime.distributed import SINGLE_PROCESS

MEAN, STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)


def make_manifest(*labels: Label, multi_label: bool = False) -> Manifest:
    records = tuple(
        Record(path=str(Path(__file__).with_name(f"{row}.mp4")), label=label, row=row)
        for row, label in enumerate(labels)
    )
    return Manifest(records=records, class_names=None, multi_label=multi_label, source="val.csv")


def make_dataset(manifest: Manifest) -> TestViews:
    clip, transform = ClipConfig(num_frames=16), EvalTransform(32, 1, MEAN, STD)
    return TestViews(manifest, clip, transform, num_clips=1)


def test_score_leaves_out_unreadable_videos() -> None:
    unreadable = UnreadableVideo(row=1, path="x", reason="empty", message="x: empty")
    logits = np.log(np.array([[[0.8, 0.2]], [[0.9, 0.1]]], np.float32))
    predictions = Predictions(np.array([0, 2]), logits, (unreadable,))
    metrics = score(predictions, make_manifest(0, 1, 1))
    assert (metrics["top1"], metrics["evaluated"], metrics["of"]) == (50, 2, 3)
    assert metrics["loss"] == pytest.approx(-(np.log(0.8) + np.log(0.1)) / 2)


def test_score_of_several_labels() -> None:
    logits = np.array([[[2.0, -2.0]], [[-2.0, 2.0]]], np.float32)
    predictions = Predictions(np.arange(2), logits, ())
    metrics = score(predictions, make_manifest((0,), (0, 1), multi_label=True))
    assert metrics["mAP"] == 100 and "top1" not in metrics


def test_the_metric_of_the_best_checkpoint() -> None:
    for multi_label, expected in ((False, "top1"), (True, "mAP")):
        manifest = make_manifest(multi_label=multi_label)
        evaluator = Accuracy(
            dataset=make_dataset(manifest),
            manifest=manifest,
            batch_size=2,
            workers=0,
            world=SINGLE_PROCESS,
        )
        assert evaluator.score == expected and evaluator.higher_is_better


@pytest.mark.parametrize(
    ("labels", "words"),
    [((0, 1), r"first error: .*/0\.mp4: no such file"), ((), "the list is empty")],
)
def test_accuracy_needs_a_readable_video(labels: tuple[int, ...], words: str) -> None:
    manifest = make_manifest(*labels)
    evaluator = Accuracy(
        dataset=make_dataset(manifest),
        manifest=manifest,
        batch_size=2,
        workers=0,
        world=SINGLE_PROCESS,
    )
    with pytest.raises(ManifestError, match=f"val.csv: none of its videos can be read; .*{words}"):
        evaluator(nn.Identity())


def test_reconstruction_needs_a_readable_video(tmp_path: Path) -> None:
    evaluator = Reconstruction(
        dataset=make_dataset(make_manifest(0)),
        batch_size=2,
        workers=0,
        world=SINGLE_PROCESS,
        mean=MEAN,
        std=STD,
        pictures=tmp_path,
    )
    words = "none of the validation videos can be read; check data.val"
    with pytest.raises(ManifestError, match=words):
        evaluator(create_model("mae_hiera_micro_16x32"))
    assert list(tmp_path.iterdir()) == []


def test_videos_of_a_shard_have_equally_many_views(monkeypatch: pytest.MonkeyPatch) -> None:
    videos = [
        VideoViews(row=row, crops=torch.zeros(views, 3), clip_seconds=(), seconds=0)  # type: ignore[arg-type]
        for row, views in enumerate((2, 3))
    ]
    monkeypatch.setattr("hiera_video.eval.evaluate.test_loader", lambda *_, **__: videos)
    dataset = make_dataset(make_manifest(0, 1))
    with pytest.raises(RuntimeError, match=r"videos differ in their number of views: \[2, 3\]"):
        predict_views(nn.Identity(), dataset, batch_size=4, workers=0, world=SINGLE_PROCESS)
