"""Evaluators: metrics of the readable videos, and errors without any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_link import FakeLink
from torch import Tensor, nn

from hiera_video.data.dataset import TestViews, UnreadableVideo, VideoViews
from hiera_video.data.manifest.record import Label, Manifest, Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.multicrop import Crops
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import ConfigError, ManifestError, StorageError
from hiera_video.eval.evaluate import Accuracy, predict_views, score
from hiera_video.eval.reconstruct import Reconstruction
from hiera_video.eval.shards import EvalShard
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
    cases = ((False, False, "top1"), (False, True, "mean_class"), (True, False, "mAP"))
    for multi_label, balanced, expected in cases:
        manifest = make_manifest(multi_label=multi_label)
        evaluator = Accuracy(
            dataset=make_dataset(manifest),
            manifest=manifest,
            batch_size=2,
            workers=0,
            world=SINGLE_PROCESS,
            balanced=balanced,
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
    monkeypatch.setattr(
        "hiera_video.eval.remaining_shards.test_loader", lambda *_, **__: (v for v in videos)
    )
    dataset = make_dataset(make_manifest(0, 1))
    with pytest.raises(RuntimeError, match=r"videos differ in their number of views: \[2, 3\]"):
        predict_views(nn.Identity(), dataset, batch_size=4, workers=0, world=SINGLE_PROCESS)


class VideosAsTheirRow:
    """Stands for a loader: video r has two views of pixels r and r + 0.5; some are unreadable."""

    def __init__(self, unreadable: Sequence[int] = (), fails_at: int | None = None) -> None:
        self.unreadable, self.fails_at, self.ended = unreadable, fails_at, False

    def __call__(self, *_: object, rows: Sequence[int], **__: object) -> Iterator[Any]:
        try:
            yield from self.videos(rows)
        finally:
            self.ended = True

    def videos(self, rows: Sequence[int]) -> Iterator[Any]:
        for row in rows:
            if row == self.fails_at:
                raise StorageError("disk gone")
            if row in self.unreadable:
                yield UnreadableVideo(row=row, path="x", reason="empty", message="x: empty")
                continue
            pixels = torch.tensor([row, row + 0.5]).view(2, 1, 1, 1, 1).expand(2, 3, 2, 4, 4)
            crops = Crops(clips=pixels, boxes=((0, 0, 4, 4),))
            yield VideoViews(row=row, crops=crops, clip_seconds=(), seconds=0.0)


class MeanPixel(nn.Module):
    """Returns the mean pixel m of each view as the logits (m, -m), and counts its batches."""

    batches = 0

    def forward(self, views: Tensor) -> Tensor:
        self.batches += 1
        means = views.mean(dim=(1, 2, 3, 4))
        return torch.stack([means, -means], dim=1)


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> list[FakeLink]:
    """Replace the device by a fake one; the list holds those that were made."""
    links: list[FakeLink] = []

    def make(device: torch.device) -> FakeLink:
        links.append(FakeLink(late=True, computes=True))
        return links[-1]

    monkeypatch.setattr("hiera_video.runtime.device_feed.device_link", make)
    return links


def predict(
    monkeypatch: pytest.MonkeyPatch,
    loader: VideosAsTheirRow,
    *,
    videos: int = 11,
    model: nn.Module | None = None,
    **options: Any,
) -> Predictions:
    monkeypatch.setattr("hiera_video.eval.remaining_shards.test_loader", loader)
    dataset = make_dataset(make_manifest(*[0] * videos))
    common: dict[str, Any] = {"batch_size": 3, "workers": 0, "world": SINGLE_PROCESS}
    return predict_views(model or MeanPixel(), dataset, **common, **options)


def test_a_gpu_gives_the_same_predictions(
    monkeypatch: pytest.MonkeyPatch, fake_gpu: list[FakeLink]
) -> None:
    """The queue of the fake GPU runs late: no result may be read before it was waited for."""
    found = predict(monkeypatch, VideosAsTheirRow(unreadable=(0, 3, 4, 5, 10)))
    readable = [1, 2, 6, 7, 8, 9]
    assert found.rows.tolist() == readable
    assert found.logits[:, :, 0].tolist() == [[row, row + 0.5] for row in readable]
    assert [video.row for video in found.unreadable] == [0, 3, 4, 5, 10]
    assert [link.closed for link in fake_gpu] == [True]


class RecordingStore:
    """Records the shards that are written, and the batches that were computed by then."""

    def __init__(self, model: MeanPixel) -> None:
        self.model, self.written = model, list[tuple[int, int]]()

    def read(self, videos: range) -> None:
        return None

    def write(self, videos: range, shard: EvalShard) -> None:
        assert shard.logits[:, 0, 0].tolist() == list(videos)
        self.written.append((videos.start, self.model.batches))


def test_results_are_read_behind_the_next_shard(
    monkeypatch: pytest.MonkeyPatch, fake_gpu: list[FakeLink]
) -> None:
    model = MeanPixel()
    store: Any = RecordingStore(model)
    predict(monkeypatch, VideosAsTheirRow(), videos=9, model=model, store=store)
    # each shard of three videos has two batches, and is read once the next one's are queued
    assert store.written == [(0, 4), (3, 6), (6, 6)]


def test_on_the_cpu_a_shard_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MeanPixel()
    store: Any = RecordingStore(model)
    with pytest.raises(StorageError, match="disk gone"):
        predict(monkeypatch, VideosAsTheirRow(fails_at=6), videos=9, model=model, store=store)
    assert store.written == [(0, 2), (3, 4)]


def test_shards_before_a_failure_of_the_loader_are_written(
    monkeypatch: pytest.MonkeyPatch, fake_gpu: list[FakeLink]
) -> None:
    model = MeanPixel()
    store: Any = RecordingStore(model)
    with pytest.raises(StorageError, match="disk gone"):
        predict(monkeypatch, VideosAsTheirRow(fails_at=6), videos=9, model=model, store=store)
    assert store.written == [(0, 4), (3, 4)]
    assert fake_gpu[0].closed


def test_fp16_that_overflows_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Infinite(nn.Module):
        def forward(self, views: Tensor) -> Tensor:
            return torch.full((len(views), 2), torch.inf)

    loader = VideosAsTheirRow()
    words = r"test\.precision=fp16: the logits are not finite; set"
    with pytest.raises(ConfigError, match=words) as caught:
        predict(monkeypatch, loader, model=Infinite(), precision="fp16")
    # its workers have ended, though whoever holds the error holds the frames of the evaluation
    assert loader.ended and caught.value.__traceback__


def test_reconstruction_averages_over_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_gpu: list[FakeLink]
) -> None:
    """Batches of 2, 2 and 1 clips have losses of 10, 20 and 60: the mean is 120 / 5."""
    losses = iter([10.0, 20.0, 60.0])
    videos = [
        VideoViews(
            row=row,
            crops=Crops(clips=torch.full((1, 3, 16, 32, 32), float(row)), boxes=((0, 0, 32, 32),)),
            clip_seconds=(),
            seconds=0.0,
        )
        for row in range(5)
    ]
    model, first_pixels = create_model("mae_hiera_micro_16x32"), list[list[float]]()

    def forward(clips: Tensor, *, keep: Tensor, decoder_draws: Tensor, visible: int) -> Any:
        assert (keep.sum(dim=1) == visible).all() and decoder_draws.shape[0] == len(clips)
        first_pixels.append(clips[:, 0, 0, 0, 0].tolist())
        return SimpleNamespace(loss=torch.tensor(next(losses)))

    monkeypatch.setattr("hiera_video.eval.reconstruct.test_loader", lambda *_, **__: iter(videos))
    monkeypatch.setattr(model, "forward", forward)
    probed = []
    module = "hiera_video.eval.reconstruct"
    monkeypatch.setattr(f"{module}.clip_features", lambda _, clips: clips[:, 0, 0, 0, :1])
    monkeypatch.setattr(f"{module}.leave_one_out_top1", lambda *pair: probed.append(pair) or 50.0)
    evaluator = Reconstruction(
        dataset=make_dataset(make_manifest(*[0] * 5)),
        batch_size=2,
        workers=0,
        world=SINGLE_PROCESS,
        mean=MEAN,
        std=STD,
        pictures=None,
        labels={0: 2, 3: 7, 4: 2},
    )
    assert evaluator(model) == {"loss": 24.0, "evaluated": 5, "of": 5, "probe_top1": 50.0}
    ((features, labels),) = probed
    assert features.tolist() == [[0.0], [3.0], [4.0]] and labels.tolist() == [2, 7, 2]
    assert first_pixels == [[0.0, 1.0], [2.0, 3.0], [4.0]]
