"""AVA: lists of the videos that are there, keys for videos and frame folders, persons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import detection

from hiera_video.cli.datasets.ava import main
from hiera_video.data.detection.manifest import (
    BoxListOptions,
    read_box_list,
    read_scored_boxes,
)
from hiera_video.data.prepare import ava as ava_lists
from hiera_video.data.prepare import person_boxes
from hiera_video.data.prepare.ava import start_of_videos
from hiera_video.data.prepare.person_boxes import find_persons, load_detector
from hiera_video.errors import CheckpointError, ConfigError, DecodeError, ManifestError
from hiera_video.video.encode import write_video

LABELS = 'item {\n  name: "stand"\n  id: 12\n}\nitem {\n  name: "sit"\n  id: 11\n}\n'
TRAIN = """one,0902,0.1,0.2,0.4,0.9,12,3
one,0902,0.1,0.2,0.4,0.9,11,3
one,0903,0.1,0.2,0.4,0.9,12,3
gone,0902,0.5,0.2,0.9,0.9,12,0
"""


@pytest.fixture
def ava(tmp_path: Path) -> Path:
    """The folder of a release with one video of three that its lists name."""
    notes = tmp_path / "annotations"
    notes.mkdir()
    (notes / "ava_train_v2.2.csv").write_text(TRAIN)
    (notes / "ava_val_v2.2.csv").write_text("one,0904,0.1,0.2,0.4,0.9,12,3\n")
    (notes / "ava_train_excluded_timestamps_v2.2.csv").write_text("one,0903\n")
    (notes / "ava_val_excluded_timestamps_v2.2.csv").write_text("")
    (notes / "ava_action_list_v2.2.pbtxt").write_text(LABELS)
    (notes / "ava_action_list_v2.2_for_activitynet_2019.pbtxt").write_text(LABELS)
    (notes / "ava_val_predicted_boxes.csv").write_text("one,0904,0.1,0.2,0.4,0.9,,0.97\n")
    (tmp_path / "videos").mkdir()
    frames = (np.full((32, 48, 3), 40 * number, np.uint8) for number in range(6))
    write_video(tmp_path / "videos" / "one.mp4", frames, fps=1)
    return tmp_path


def prepare(folder: Path, *options: str) -> int:
    annotations, videos = folder / "annotations", folder / "videos"
    return main(["--annotations", str(annotations), "--videos", str(videos), *options])


def test_lists_and_keys(ava: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(ava) == 0
    assert (ava / "train.csv").read_text() == "".join(TRAIN.splitlines(keepends=True)[:2])
    assert (ava / "val_boxes.csv").read_text() == "one,0904,0.1,0.2,0.4,0.9,,0.97\n"
    assert not (ava / "train_boxes.csv").exists()
    notes = ava / "annotations"
    assert capsys.readouterr().out == (
        f"{ava}/train.csv: 1 key frame and 2 lines of 1 of 2 videos; 1 key frame excluded\n"
        f"{ava}/val.csv: 1 key frame and 1 line of 1 of 1 video; 0 key frames excluded\n"
        f"{ava}/val_boxes.csv: 1 key frame and 1 line of 1 of 1 video; 0 key frames excluded\n"
        "use: hiera-video train --cfg ava_hiera_l \\\n"
        f"  data.root={ava}/videos \\\n"
        f"  detect.label_map={notes}/ava_action_list_v2.2.pbtxt \\\n"
        f"  detect.eval_label_map={notes}/ava_action_list_v2.2_for_activitynet_2019.pbtxt \\\n"
        f"  data.train={ava}/train.csv \\\n"
        f"  data.val={ava}/val.csv \\\n"
        f"  detect.boxes={ava}/val_boxes.csv \\\n"
        "  detect.start_seconds=900\n"
    )
    options = BoxListOptions(
        root=str(ava / "videos"), label_map=str(notes / "ava_action_list_v2.2.pbtxt")
    )
    (record,) = read_box_list(ava / "train.csv", options).records
    assert record.labels == ((0, 1),) and record.second == 902.0


def test_folders_of_frames(ava: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (ava / "videos" / "one.mp4").unlink()
    (ava / "videos" / "one").mkdir()
    for number in range(3):
        picture = Image.new("RGB", (48, 32))
        picture.save(ava / "videos" / "one" / f"one_{number:06d}.jpg")
    assert prepare(ava) == 0
    printed = capsys.readouterr().out
    assert "  data.decoder=frames \\\n" in printed and "detect.start_seconds=900" in printed


def test_whole_films_start_at_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ava_lists, "CUT_SECONDS", -58)  # instead of 901: at most 2 s are a cut
    (tmp_path / "film").mkdir()
    for number in range(2 * 30 + 1):
        (tmp_path / "film" / f"{number}.jpg").touch()
    assert start_of_videos(tmp_path, "film", is_folder=True) == 0
    (tmp_path / "film" / "0.jpg").unlink()
    assert start_of_videos(tmp_path, "film", is_folder=True) == 900
    for count, start in ((2, 900), (3, 0)):
        frames = (np.zeros((16, 16, 3), np.uint8) for _ in range(count))
        write_video(tmp_path / f"{count}.mp4", frames, fps=1)
        assert start_of_videos(tmp_path, str(count), is_folder=False) == start


class FakeDetector:
    """Finds one person in the left half of bright frames, and something else."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.calls, self.fail_at = 0, fail_at

    def __call__(self, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        (picture,) = pictures
        assert picture.shape == (3, 32, 48) and picture.dtype == torch.float32
        score = 0.9 if picture.mean() > 0.5 else 0.01
        boxes = torch.tensor([[-1.0, 0, 24, 32], [0, 0, 48, 32]])
        labels, scores = torch.tensor([1, 3]), torch.tensor([score, 0.99])
        return [{"boxes": boxes, "labels": labels, "scores": scores}]


def test_persons_of_key_frames(
    ava: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    val = ava / "annotations" / "ava_val_v2.2.csv"
    val.write_text("one,0904,0.1,0.2,0.4,0.9,12,3\none,0901,0.1,0.2,0.4,0.9,12,3\n")
    monkeypatch.setattr(person_boxes, "load_detector", lambda name, weights: FakeDetector())
    assert prepare(ava, "--detector-weights", "w.pth") == 0
    assert (ava / "val_boxes.csv").read_text() == (
        "one,904.0,0.000,0.000,0.500,1.000,0.9000\none,901.0\n"
    )
    printed = capsys.readouterr().out
    assert f"{ava}/val_boxes.csv: 1 persons in 2 key frames\n" in printed
    assert printed.endswith(f"detect.boxes={ava}/val_boxes.csv\n")
    root = BoxListOptions(root=str(ava / "videos"))
    found = read_scored_boxes(ava / "val_boxes.csv", root, min_score=0.8)
    assert [len(record.boxes) for record in found.records] == [1, 0]


def test_an_interrupted_detection_continues(ava: Path) -> None:
    assert prepare(ava) == 0
    val, target = ava / "val.csv", ava / "found.csv"
    val.write_text("".join(f"one,090{second},0.1,0.2,0.4,0.9,12,3\n" for second in range(6)))
    label_map = str(ava / "annotations" / "ava_action_list_v2.2.pbtxt")
    manifest = read_box_list(val, BoxListOptions(root=str(ava / "videos"), label_map=label_map))
    with pytest.raises(KeyboardInterrupt):
        find_persons(FakeDetector(fail_at=5), manifest, target, start_seconds=900)
    assert not target.exists()
    with (ava / ".found.csv.unfinished").open("a") as file:
        file.write("one,904.0,0.0")  # a line of which a killed process wrote a part
    second = FakeDetector()
    assert find_persons(second, manifest, target, start_seconds=900) == 2
    assert second.calls == 2 and not (ava / ".found.csv.unfinished").exists()
    whole = find_persons(FakeDetector(), manifest, ava / "whole.csv", start_seconds=900)
    assert whole == 2 and target.read_text() == (ava / "whole.csv").read_text()
    with pytest.raises(DecodeError, match=r"val.csv:1: second 900 lies outside .*one.mp4; correct"):
        find_persons(FakeDetector(), manifest, ava / "other.csv", start_seconds=0)


def test_errors(ava: Path) -> None:
    with pytest.raises(ManifestError, match=r"videos: does not exist; hiera-video prepare ava"):
        main(["--annotations", str(ava / "annotations"), "--videos", str(ava / "no/videos")])
    with pytest.raises(ManifestError, match=r"ava_train_excluded_timestamps_v3.csv: no such file"):
        notes = ava / "annotations"
        (notes / "ava_train_v3.csv").write_text(TRAIN)
        (notes / "ava_action_list_v3.pbtxt").write_text(LABELS)
        prepare(ava, "--version", "3")
    with pytest.raises(ConfigError, match=r"--detector-weights w: finds the boxes that --val-box"):
        prepare(ava, "--detector-weights", "w", "--val-boxes", "b.csv")
    lists = {
        "one,0902,0.1\n": r"ava_train_v2.2.csv:1: has 3 columns, AVA's lines are video,second,x1",
        "one,x,0,0,1,1,12,0\n": r"ava_train_v2.2.csv:1: second 'x' is not a number; download",
        "two,0902,0,0,1,1,12,0\n": r"none of its 1 video is there; the first is two: name the",
    }
    for text, words in lists.items():
        (ava / "annotations" / "ava_train_v2.2.csv").write_text(text)
        with pytest.raises(ManifestError, match=words):
            prepare(ava)
        assert not (ava / "train.csv").exists()
    (ava / "videos" / "one.mp4").unlink()
    with pytest.raises(ManifestError, match=r"videos: contains no videos and no folders of frames"):
        prepare(ava)


def test_errors_of_the_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "w.pth"
    with pytest.raises(ConfigError, match=r"--detector yolo: unknown; choose one of fasterrcnn"):
        load_detector("yolo", weights)
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    monkeypatch.setattr(detection, name, lambda **_: nn.Linear(2, 2))  # a detector takes seconds
    with pytest.raises(ConfigError, match=r"w.pth: no such file; download torchvision's weights"):
        load_detector(name, weights)
    torch.save({"head.weight": torch.zeros(1)}, weights)
    with pytest.raises(CheckpointError, match=rf"w.pth: are not weights of {name} \(.*with --det"):
        load_detector(name, weights)
    weights.write_text("no weights")
    with pytest.raises(CheckpointError, match=r"w.pth: are not weights of"):
        load_detector(name, weights)


@pytest.mark.slow
def test_a_detector_of_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    model = getattr(detection, name)(weights=None, weights_backbone=None)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    loaded = load_detector(name, tmp_path / "w.pth")
    found = person_boxes._persons(loaded, np.zeros((32, 48, 3), np.uint8))
    assert found.shape[1] == 5 and ((found >= 0) & (found <= 1)).all()
