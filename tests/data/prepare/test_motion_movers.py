"""The set of movers: equal bytes each time, boxes around the movers, motions that are mirrored."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from hiera_video.cli.datasets.motion import main
from hiera_video.data.detection.key_frame import BoxManifest
from hiera_video.data.detection.manifest import (
    BoxListOptions,
    read_box_list,
    read_scored_boxes,
)
from hiera_video.data.prepare.motion_movers import MoverOptions, box_at, draw_movers, list_videos
from hiera_video.errors import ConfigError
from hiera_video.eval.detection import intersection_over_union
from hiera_video.utils.resumable import exclusive
from hiera_video.video import open_video


def make(out: Path) -> int:
    return main([f"output={out}", "--movers", "4", "--clips-per-class", "3", "--workers", "1"])


@pytest.fixture(scope="module")
def movers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("movers") / "set"
    assert make(out) == 0
    return out


@pytest.fixture(scope="module")
def train(movers: Path) -> BoxManifest:
    return read_box_list(movers / "train.csv", BoxListOptions())


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def test_lists_are_in_avas_form(movers: Path, train: BoxManifest) -> None:
    lines = (movers / "train.csv").read_text().splitlines()
    assert lines[:3] == [
        "1,0.8,0.153,0.628,0.249,0.743,8,0",
        "1,0.8,0.569,0.733,0.685,0.873,5,1",
        "2,1.5,0.153,0.628,0.249,0.743,7,0",
    ]
    assert (
        (movers / "action_list.pbtxt")
        .read_text()
        .startswith('item {\n  name: "Moving something from left to right"\n  id: 1\n}\n')
    )
    assert [len(record.boxes) for record in train.records] == [2, 2, 3, 3, 4, 4, 2, 2]
    assert train.class_ids == (1, 2, 3, 4, 5, 6, 7, 8)
    val = read_box_list(movers / "val.csv", BoxListOptions())
    assert [record.video for record in val.records] == ["9", "10"]
    assert not {record.path for record in val.records} & {record.path for record in train.records}


def test_a_mirror_has_the_mirrored_motions_at_the_same_places(train: BoxManifest) -> None:
    for forward, backward in zip(train.records[::2], train.records[1::2]):
        assert np.array_equal(forward.boxes, backward.boxes)
        assert forward.second + backward.second == pytest.approx(2.3)  # of 24 frames, 10 a second
        for (label,), (mirrored,) in zip(forward.labels, backward.labels):
            assert label // 2 == mirrored // 2 and label != mirrored
        with open_video(forward.path) as one, open_video(backward.path) as other:
            frames, reversed_frames = one.frames(range(24)), other.frames(range(23, -1, -1))
        assert frames.shape == (24, 80, 96, 3)
        assert np.abs(frames.astype(int) - reversed_frames).mean() < 2  # compression alone


def test_no_two_movers_of_a_video_move_alike(train: BoxManifest) -> None:
    assert all(len(set(record.labels)) == len(record.labels) for record in train.records)


def test_boxes_hold_the_movers(train: BoxManifest) -> None:
    for record in train.records:
        with open_video(record.path) as video:
            (frame,) = video.frames([round(10 * record.second)])
        inside = np.zeros(frame.shape[:2], bool)
        for left, top, right, bottom in record.boxes * (96, 80, 96, 80):
            part = np.s_[int(top) : int(bottom) + 2, int(left) : int(right) + 2]
            inside[part] = True
            assert frame[part].max() > 130  # something bright
        assert frame[~inside].max() < 130  # the background is dark


def test_found_boxes_are_near_the_labelled_ones_and_false_ones_score_low(
    movers: Path, train: BoxManifest
) -> None:
    found = read_scored_boxes(movers / "train_boxes.csv", BoxListOptions(), min_score=0.8)
    for record, boxes in zip(train.records, found.records):
        overlap = intersection_over_union(record.boxes.astype(float), boxes.boxes.astype(float))
        assert len(overlap) == len(record.boxes) and (overlap > 0.6).all()
        assert not np.array_equal(record.boxes, boxes.boxes)
    everything = read_scored_boxes(movers / "train_boxes.csv", BoxListOptions(), min_score=0.0)
    assert everything.num_boxes == found.num_boxes + len(train.records)


def test_classes_and_places_are_drawn_evenly() -> None:
    options = MoverOptions(seed=0, hard=False, movers=4, movers_per_class=240)
    videos = list_videos(options)
    assert (options.videos("train"), options.videos("validation"), len(videos)) == (640, 106, 746)
    drawn = [draw_movers(video, options) for video in videos[:640]]
    labels = [mover.label for movers, _ in drawn for mover in movers]
    cells = [mover.cell for movers, _ in drawn for mover in movers]
    assert len(labels) == 1918  # 2, 3 and 4 in turn, each twice
    assert min(labels.count(label) for label in range(8)) > 210
    assert min(cells.count(cell) for cell in range(4)) > 440
    boxes = [box_at(mover, key) for movers, key in drawn for mover in movers]
    assert all(0 <= left < right <= 1 for left, _, right, _ in boxes)


@pytest.mark.slow
def test_the_same_command_writes_the_same_bytes(movers: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "again") == 0
    assert hashes(tmp_path / "again") == hashes(movers)


def test_a_second_command_does_nothing(movers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (movers / "videos" / "1.mp4").stat().st_mtime_ns
    assert make(movers) == 0
    assert capsys.readouterr().out == f"{movers}: exists: 8 training and 2 held-out clips\n"
    assert (movers / "videos" / "1.mp4").stat().st_mtime_ns == before


def test_two_commands_do_not_make_the_same_set(tmp_path: Path) -> None:
    out = tmp_path / "new"
    out.mkdir()
    words = r"output=.*new: another command is making it; wait for its end or choose another folder"
    with exclusive(out / ".lock", "busy"), pytest.raises(ConfigError, match=words):
        make(out)
    (out / ".lock").touch()  # of a command that was killed
    assert make(out) == 0 and not (out / ".lock").exists()


def test_errors(tmp_path: Path) -> None:
    for count in ("0", "5"):
        with pytest.raises(ConfigError, match=f"--movers {count}: must be 1, or at most 2 to 4"):
            main([f"output={tmp_path / 'new'}", "--movers", count])
