"""Lists of boxes that a configuration names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hiera_video.config.load import load_config
from hiera_video.config.schema import Config
from hiera_video.data.detection.key_frame import BoxManifest
from hiera_video.errors import ManifestError
from hiera_video.workflows.build import align_val, read_split, resolve_num_classes
from hiera_video.workflows.detect import make_detection_task
from hiera_video.workflows.key_frames import classes_that_count, read_boxes_to_score


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.mp4"):
        Path(name).touch()  # unreadable headers are no error here
    Path("labels.txt").write_text("sit\nrun\neat\n")
    Path("train.csv").write_text("a,1,0,0,1,1,sit\na,2,0,0,1,1,run\n")
    Path("val.csv").write_text("a,3,0,0,1,1,eat\n")
    Path("boxes.csv").write_text("b,1,0,0,1,1,0.9\na,3,0,0,0.5,1,0.9\na,4,0,0,1,1,0.7\n")
    Path("matched.csv").write_text("a,2,0,0,0.9,1,2,0.9\nb,5,0,0,1,1,,0.9\nb,6,0,0,1,1,0,0.5\n")

    def make(*overrides: str) -> Config:
        common = ["train.task=detect", "data.train=train.csv", "data.val=val.csv"]
        return load_config("motion_hiera_micro", [*common, *overrides])

    return make


def manifest(config: Config, split: str = "train") -> BoxManifest:
    found = read_split(config, split)
    assert isinstance(found, BoxManifest)
    return found


def test_training_adds_the_boxes_of_a_detector(config: Any) -> None:
    found = manifest(config("detect.train_boxes=matched.csv"))
    assert [(Path(one.path).name, one.second, one.row) for one in found.records] == [
        ("a.mp4", 1.0, 0),
        ("a.mp4", 2.0, 1),
        ("b.mp4", 5.0, 2),
    ]
    assert [one.labels for one in found.records] == [((0,),), ((1,), (2,)), ((),)]
    assert found.records[1].label == (1, 2) and found.records[1].boxes.shape == (2, 4)
    assert resolve_num_classes(config(), found) == 3
    assert manifest(config("detect.train_boxes=matched.csv"), "val").num_boxes == 1


def test_a_test_scores_labelled_boxes_or_those_of_a_detector(config: Any) -> None:
    truth = manifest(config(), "val")
    assert read_boxes_to_score(config(), truth) is truth
    scored = read_boxes_to_score(config("detect.boxes=boxes.csv"), truth)
    assert [(one.second, one.row) for one in scored.records] == [(3.0, 0)]
    assert scored.class_names == ("sit", "run", "eat")
    more = read_boxes_to_score(config("detect.boxes=boxes.csv", "detect.min_score=0.6"), truth)
    assert [one.second for one in more.records] == [3.0, 4.0]
    Path("boxes.csv").write_text("b,1,0,0,1,1,0.9\n")
    with pytest.raises(
        ManifestError,
        match=r"^detect.boxes=boxes.csv: has no box in a video of val.csv; name the boxes of its ",
    ):
        read_boxes_to_score(config("detect.boxes=boxes.csv"), truth)


def test_classes_that_count(config: Any) -> None:
    truth = manifest(config(), "val")
    assert classes_that_count(config(), truth) == (0, 1, 2)
    Path("map.pbtxt").write_text('item { name: "eat" id: 5 } item { name: "sit" id: 7 }')
    assert classes_that_count(config("detect.eval_label_map=map.pbtxt"), truth) == (0, 2)
    Path("map.pbtxt").write_text('item { name: "fly" id: 5 }')
    words = r"=map.pbtxt: names classes that val.csv does not have: 'fly'; correct the names"
    with pytest.raises(ManifestError, match=words):
        classes_that_count(config("detect.eval_label_map=map.pbtxt"), truth)
    with pytest.raises(ManifestError, match=r"detect.eval_label_map=no.txt: no such file; name th"):
        classes_that_count(config("detect.eval_label_map=no.txt"), truth)


def test_lists_with_other_classes_are_an_error(config: Any) -> None:
    train = manifest(config())
    (Path("other")).mkdir()
    for labels, words in (
        ("sit\nrun\nfly\n", r"the 3 of train.csv differ in 'eat', 'fly'; set detect.label_map to"),
        ("run\nsit\neat\n", r"the 3 of train.csv are in another order; set detect.label_map to"),
    ):
        Path("other/labels.txt").write_text(labels)
        Path("other/val.csv").write_text("a,3,0,0,1,1,run\n")
        changed = config("data.val=other/val.csv", "data.root=.")
        with pytest.raises(ManifestError, match=words):
            align_val(changed, train, manifest(changed, "val"))
    assert align_val(config(), train, manifest(config(), "val")).num_classes == 3


def test_rare_classes_weigh_more(config: Any) -> None:
    """Three boxes: two sit, one runs, none eats; (N - n) / n each."""
    Path("train.csv").write_text("a,1,0,0,1,1,sit\na,1,0,0,0.5,1,sit\na,2,0,0,1,1,run\n")
    weighted = config("train.weighted_loss=true")
    task = make_detection_task(weighted, manifest(weighted), 3)
    assert task.class_weights == (0.5, 2.0, 0.0)
    assert make_detection_task(config(), manifest(config()), 3).class_weights is None


def test_a_share_of_the_key_frames_is_held_out(config: Any) -> None:
    """The key frames of one video stay together."""
    for name in "cdefgh":
        Path(f"{name}.mp4").touch()
    lines = [f"{name},{second},0,0,1,1,sit\n" for name in "abcdefgh" for second in (1, 2)]
    Path("train.csv").write_text("".join(lines))
    split = config("data.val=null", "data.split=[0.25,0]")
    train, val = manifest(split), manifest(split, "val")
    assert len(train.records) == 12 and len(val.records) == 4
    assert not {one.path for one in train.records} & {one.path for one in val.records}
    assert [one.row for one in val.records] == [0, 1, 2, 3]
