"""Actions in boxes of a video, and the video with its boxes drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import hiera_video as hv
from hiera_video.config.schema import Config
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import ConfigError, DecodeError, ManifestError
from hiera_video.eval.config import TestConfig
from hiera_video.models.detection import HieraDetector
from hiera_video.models.hiera import Hiera
from hiera_video.models.registry import ModelConfig
from hiera_video.train.config import TrainConfig
from hiera_video.video import open_video
from hiera_video.video.encode import write_video
from hiera_video.workflows.detect_boxes import DetectedActions, write_boxes_video
from hiera_video.workflows.load_run import LoadedRun

LEFT, RIGHT = (0.0, 0.1, 0.4, 0.9), (0.6, 0.1, 1.0, 0.9)


@pytest.fixture
def run(random_model: Callable[[], Hiera]) -> LoadedRun:
    """A detector of three classes with random weights; three crops cover a wide frame."""
    classifier = random_model()
    detector = HieraDetector(classifier.config)
    detector.load_state_dict(classifier.state_dict())
    config = Config(
        model=ModelConfig(name="hiera_micro_16x32", num_classes=3),
        clip=ClipConfig(num_frames=16, frame_stride=1, target_fps=None),
        train=TrainConfig(task="detect"),
        test=TestConfig(crops=3, batch_size=4),
    )
    return LoadedRun(
        model=detector.eval(),
        transform=EvalTransform(32, 3, config.augment.mean, config.augment.std),
        class_names=("up", "down", "stay"),
        config=config,
        multi_label=True,
    )


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Noise, 30 frames at 10 a second, brighter on the right in the second half."""
    frames = np.random.default_rng(0).integers(0, 100, (30, 40, 64, 3), dtype=np.uint8)
    frames[15:, :, 32:] += 120
    write_video(tmp_path / "film.mp4", frames, fps=10)
    return tmp_path / "film.mp4"


def test_what_is_no_video_is_refused(run: LoadedRun) -> None:
    with pytest.raises(ConfigError, match=r"video is an array .* give the path of a file"):
        hv.detect(run, np.zeros((3, 4, 4, 3)), [LEFT], 0.5)  # type: ignore[arg-type]


def test_each_box_has_its_actions(run: LoadedRun, film: Path) -> None:
    found = hv.detect(run, film, [LEFT, RIGHT, LEFT], [2.0, 0.5, 0.5])
    assert [each.second for each in found] == [2.0, 0.5, 0.5]
    assert [each.box for each in found] == [pytest.approx(box) for box in (LEFT, RIGHT, LEFT)]
    for each in found:
        assert each.path == str(film) and len(each.top_classes) == 3
        values = [value for _, value in each.top_classes]
        assert values == sorted(values, reverse=True) and 0 < values[-1] <= values[0] < 1
    assert len({each.top_classes for each in found}) == 3  # box and second matter
    (alone,) = hv.detect(run, film, [RIGHT], np.float32(0.5), topk=1)
    (label, value), (expected, other) = alone.top_classes[0], found[1].top_classes[0]
    assert label == expected and value == pytest.approx(other, abs=1e-5)


def test_the_scores_are_those_of_the_model(run: LoadedRun, film: Path) -> None:
    """The left box is in the left crop: frames 2 to 17 for second 1.0."""
    (found,) = hv.detect(run, film, [LEFT], 1.0)
    with open_video(film) as video:
        crops = run.transform(video.frames(range(2, 18)))
    # 64×40 is resized to 51×32; the box lies whole in the first crop
    boxes = torch.tensor([[0, 0.0, 3.2, 20.4, 28.8]])
    with torch.inference_mode():
        expected = run.model(crops[:1], boxes=boxes).sigmoid()[0]
    names = ("up", "down", "stay")
    assert dict(found.top_classes) == pytest.approx(dict(zip(names, expected.tolist())), abs=1e-5)


def test_no_boxes(run: LoadedRun, film: Path) -> None:
    assert hv.detect(run, film, [], []) == []
    assert hv.detect(run, film, np.zeros((0, 4)), 1.0) == []


def test_errors(run: LoadedRun, film: Path) -> None:
    wrong: dict[str, tuple[object, object]] = {
        r"boxes are \[1, 3\]; give \[N, 4\]": ([[0, 0, 1]], 1.0),
        r"boxes: must be \[N, 4\] numbers": ([[0, 0, 1], [0]], 1.0),
        r"boxes\[1\]: right=64 lies outside \[0, 1\]; divide pixels": ([LEFT, (0, 0, 64, 1)], 1.0),
        r"boxes\[0\]: right or bottom is below left or top": ([(0.5, 0, 0.4, 1)], 1.0),
        "seconds: 1 for 2 boxes; give one for each box": ([LEFT, RIGHT], [1.0]),
        r"seconds\[1\]=nan: must be 0 or more, and finite": ([LEFT, RIGHT], [1.0, float("nan")]),
        r"seconds\[0\]=-1: must be 0 or more": ([LEFT], -1),
        "seconds: must be a number, or one for each box": ([LEFT], "later"),
    }
    for words, (boxes, seconds) in wrong.items():
        with pytest.raises(ConfigError, match=words):
            hv.detect(run, film, boxes, seconds)  # type: ignore[arg-type]
    with pytest.raises(ManifestError, match=r"seconds\[1\]: second 9 lies outside .*film.mp4"):
        hv.detect(run, film, [LEFT, RIGHT], [1.0, 9.0])
    with pytest.raises(DecodeError, match=r"gone.mp4: no such file"):
        hv.detect(run, film.with_name("gone.mp4"), [LEFT], 1.0)


def test_a_classifier_has_no_boxes(run: LoadedRun, film: Path) -> None:
    config = Config(model=run.config.model, out_dir="runs/x")
    classifier = LoadedRun(
        model=run.model, transform=run.transform, class_names=None, config=config
    )
    with pytest.raises(
        ConfigError, match=r"runs/x: is a run of train.task=classify, which has no boxes; train one"
    ):
        hv.detect(classifier, film, [LEFT], 1.0)


def actions(second: float, box: tuple[float, float, float, float]) -> DetectedActions:
    top = (("up", 0.9), ("down", 0.4))
    return DetectedActions(path="film", second=second, box=box, top_classes=top)


def test_boxes_are_drawn_while_their_key_frame_is_nearest(tmp_path: Path) -> None:
    frames = (np.zeros((40, 64, 3), np.uint8) for _ in range(30))
    write_video(tmp_path / "black.mp4", frames, fps=10)
    target = str(tmp_path / "drawn.mp4")
    drawn = [actions(900.6, (0.1, 0.6, 0.2, 0.9)), actions(901.2, (0.8, 0.6, 0.9, 0.9))]
    count = write_boxes_video(str(tmp_path / "black.mp4"), drawn, target, start_seconds=900)
    with open_video(target) as video:
        shown, info = video.frames(range(30)), video.info
    assert count == info.num_frames == 30 and (info.width, info.height, info.fps) == (768, 480, 10)
    bright = shown.max(axis=-1) > 60
    left = np.flatnonzero(bright[:, 288:432, :384].any(axis=(1, 2))).tolist()
    right = np.flatnonzero(bright[:, 288:432, 480:].any(axis=(1, 2))).tolist()
    # 0.1 to 0.9 s, of which 0.9 is as near to 1.2; then 1.0 to 1.7 s
    assert left == list(range(1, 10)) and right == list(range(10, 18))


def test_a_video_that_cannot_be_written(film: Path) -> None:
    with pytest.raises(ConfigError, match=r"/no/a.mp4: cannot be written \("):
        write_boxes_video(str(film), [actions(1.0, LEFT)], "/no/a.mp4")
