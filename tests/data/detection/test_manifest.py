"""Lists of boxes in AVA's form, and the messages about their lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hiera_video.data.detection.box_classes import read_box_classes
from hiera_video.data.detection.manifest import (
    BoxListOptions,
    read_box_list,
    read_scored_boxes,
)
from hiera_video.errors import ManifestError
from hiera_video.train.list_digest import describe_changes, list_digest

AVA_MAP = """# v2.2
item {
  name: "bend/bow (at the waist)"
  id: 1
}
label { name: "stand" label_id: 12 label_type: PERSON_MOVEMENT }
item { name: 'say \\'hi\\'' id: 80 }
"""


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    """A list beside its classes, in a folder with two videos."""
    (tmp_path / "videos").mkdir()
    for name in ("-5KQ66BBWC4.mkv", "b.mp4"):
        (tmp_path / "videos" / name).touch()
    (tmp_path / "ava_action_list_v2.2.pbtxt").write_text(AVA_MAP)
    return tmp_path / "train.csv"


def write(listing: Path, *lines: str) -> Path:
    listing.write_text("".join(f"{line}\n" for line in lines))
    return listing


def test_avas_rows_become_key_frames(listing: Path) -> None:
    write(
        listing,
        "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1",
        "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,12,1",
        "-5KQ66BBWC4,0902,0.226,0.032,0.366,0.497,12,0",
        "videos/b.mp4,3.5,0,0,1,1,stand,7",
        "b,4",
        "b,3.5,0.5,0.5,0.75,1.001,,8",
    )
    found = read_box_list(listing, BoxListOptions())
    assert found.class_names == ("bend/bow (at the waist)", "stand", "say 'hi'")
    assert found.class_ids == (1, 12, 80)
    assert found.multi_label and found.num_classes == 3 and found.num_boxes == 4
    first, named, empty = found.records
    assert first.path == str(listing.parent / "videos/-5KQ66BBWC4.mkv")
    assert (first.video, first.second, first.row) == ("-5KQ66BBWC4", 902.0, 0)
    assert first.boxes.dtype == np.float32
    np.testing.assert_allclose(
        first.boxes, [[0.077, 0.151, 0.283, 0.811], [0.226, 0.032, 0.366, 0.497]], rtol=1e-6
    )
    assert first.labels == ((1, 2), (1,)) and first.label == (1, 2)
    assert first.persons == ("1", "0") and first.scores is None
    assert first.where == f"{listing}:1"
    # one video by two names; a box without an action; rounded edges
    assert named.path == str(listing.parent / "videos/b.mp4") and named.labels == ((1,), ())
    assert named.boxes.tolist() == [[0, 0, 1, 1], [0.5, 0.5, 0.75, 1.0]]
    assert empty.boxes.shape == (0, 4) and empty.labels == () and empty.label == ()


def test_two_persons_may_have_the_same_box(listing: Path) -> None:
    write(listing, "b,1,0,0,1,1,1,1", "b,1,0,0,1,1,12,2")
    (found,) = read_box_list(listing, BoxListOptions()).records
    assert found.labels == ((0,), (1,)) and found.persons == ("1", "2")


@pytest.mark.parametrize(
    ("line", "score", "labels"),
    [
        ("b,902,0.1,0.2,0.3,0.4,0.9", 0.9, ()),
        ("b,902,0.1,0.2,0.3,0.4,,0.9", 0.9, ()),
        ("b,902,0.1,0.2,0.3,0.4,12,0.9", 0.9, (1,)),
        ("b,902,0.1,0.2,0.3,0.4,12,5,0.9", 0.9, (1,)),
        ("b,902,0.1,0.2,0.3,0.4", 1.0, ()),
    ],
)
def test_boxes_of_a_detector(
    listing: Path, line: str, score: float, labels: tuple[int, ...]
) -> None:
    write(listing, line, "b,902,0.5,0.5,0.6,0.6,,0.79")
    (found,) = read_scored_boxes(listing, BoxListOptions(), min_score=0.8).records
    assert found.scores is not None
    np.testing.assert_allclose(found.scores, [score], rtol=1e-6)
    np.testing.assert_allclose(found.boxes, [[0.1, 0.2, 0.3, 0.4]], rtol=1e-6)
    assert found.labels == (labels,)


def test_boxes_without_actions_need_no_classes(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").touch()
    listing = write(tmp_path / "boxes.csv", "b,1,0,0,1,1,0.9")
    found = read_scored_boxes(listing, BoxListOptions(), min_score=0)
    assert found.class_names is None and found.class_ids == ()


def test_a_list_without_actions_trains_nothing(listing: Path) -> None:
    write(listing, "b,1,0,0,1,1,")
    with pytest.raises(
        ManifestError,
        match=r"train.csv: no box has an action; write video,second,x1,y1,x2,y2,action lines",
    ):
        read_box_list(listing, BoxListOptions()).require_labels()
    read_box_list(
        write(listing, "b,1,0,0,1,1,", "b,2,0,0,1,1,1"), BoxListOptions()
    ).require_labels()


def test_excluded_timestamps(listing: Path) -> None:
    write(listing, "b,902,0,0,1,1,1", "b,903,0,0,1,1,1")
    excluded = write(listing.with_name("excluded.csv"), "b,0902", "c,903")
    options = BoxListOptions(excluded=str(excluded))
    assert [one.second for one in read_box_list(listing, options).records] == [903.0]
    write(listing, "b,902,0,0,1,1,1")
    with pytest.raises(ManifestError, match=r"has no key frames left by detect.excluded=.*ed.csv;"):
        read_box_list(listing, options)


@pytest.mark.parametrize(
    ("listed", "excluded"), [("b", "b.mp4"), ("b.mp4", "b"), ("b", "./b.mp4"), ("./b", "videos/b")]
)
def test_excluded_videos_are_named_as_in_lists(listing: Path, listed: str, excluded: str) -> None:
    write(listing, f"{listed},902,0,0,1,1,1", f"{listed},903,0,0,1,1,1")
    lines = write(listing.with_name("excluded.csv"), f"{excluded},902")
    options = BoxListOptions(excluded=str(lines))
    assert [one.second for one in read_box_list(listing, options).records] == [903.0]


def test_lines_that_exclude_nothing_are_counted(
    listing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(listing, "b,902,0,0,1,1,1", "b,903,0,0,1,1,1")
    other = listing.with_name("another_split.mp4")
    other.touch()
    excluded = write(listing.with_name("excluded.csv"), "b,902", "typo.mp4,3", "b,905.5")
    options = BoxListOptions(excluded=str(excluded))
    read_box_list(listing, options)
    assert caplog.messages == [
        f"detect.excluded={excluded}: 2 lines match no key frame of {listing}, first 'typo.mp4,3'"
    ]
    caplog.clear()
    write(excluded, "b,902", "another_split,3", "b,907")
    read_box_list(listing, options)
    assert caplog.messages == [
        f"detect.excluded={excluded}: 1 line matches no key frame of {listing}, first 'b,907'"
    ]
    read_scored_boxes(listing, options, min_score=0)
    assert len(caplog.messages) == 1


def test_folders_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "frames/b").mkdir(parents=True)
    (tmp_path / "labels.txt").write_text("sit\nrun\n")
    listing = write(tmp_path / "list.csv", "b,1,0,0,1,1,1", "b,1,0,0,1,1,run,4")
    options = BoxListOptions(root=str(tmp_path / "frames"), folders=True)
    found = read_box_list(listing, options)
    assert found.records[0].path == str(tmp_path / "frames/b")
    assert found.class_ids == (0, 1)
    assert found.records[0].labels == ((1,), (1,))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "b,1,0.1,0.2,1.3,0.4,1",
            ":2: x2=1.3 lies outside [0, 1]; boxes are shares of the frame: divide pixels by its "
            "width and height",
        ),
        ("b,1,nan,0.2,1,0.4,1", ":2: x1=nan lies outside [0, 1]; boxes are shares"),
        ("b,1,0.1,-0.2,1,0.4,1", ":2: y1=-0.2 lies outside [0, 1]; boxes are shares"),
        (
            "b,1,0.5,0.2,0.4,0.4,1",
            ":2: x2=0.4 is below x1=0.5; write the left, top, right and bottom edge (not width "
            "and height)",
        ),
        ("b,1,0.1,0.5,0.4,0.4,1", ":2: y2=0.4 is below y1=0.5; write the left"),
        (
            "c.mp4,1,0,0,1,1,1",
            ":2: no video named 'c.mp4' in {folder} or its folder videos; correct the name, set "
            "data.root to the folder of the videos, or remove its lines",
        ),
        ("../b,1,0,0,1,1,1", ":2: no video named '../b' in {folder}"),
        (
            "b,1,0,0,1,1,13",
            ":2: action '13' is no class of {folder}/ava_action_list_v2.2.pbtxt, which has 3, ids "
            "1 to 80; correct it, or set detect.label_map to the list's own classes",
        ),
        ("b,1,0,0,1,1,0000000012345", ":2: action '0000000012345' is no class of"),
        ("b,-1,0,0,1,1,1", ":2: second '-1' is not a time: must be a number from 0"),
        (
            "b,1,0,0,1,1",
            ":2: 'b,1,0,0,1,1' has 6 columns; write video,second,x1,y1,x2,y2,action[,person]",
        ),
        (",1,0,0,1,1,1", ":2: ',1,0,0,1,1,1' has 7 columns; write video,second"),
    ],
)
def test_messages_name_line_value_and_remedy(listing: Path, line: str, message: str) -> None:
    write(listing, "b,1,0,0,1,1,1", line)
    with pytest.raises(ManifestError) as error:
        read_box_list(listing, BoxListOptions())
    assert str(error.value).startswith(
        f"{listing}{message.replace('{folder}', str(listing.parent))}"
    )


@pytest.mark.parametrize("score", ["1.5", "-0.1", "nan", "high"])
def test_a_score_is_a_share(listing: Path, score: str) -> None:
    write(listing, f"b,1,0,0,1,1,{score}")
    with pytest.raises(ManifestError, match=rf":1: score '{score}' is not a number from 0 to 1; w"):
        read_scored_boxes(listing, BoxListOptions(), min_score=0)


def test_messages_about_files(listing: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"train.csv: no such file; write lines of video,sec"):
        read_box_list(listing, BoxListOptions())
    write(listing, "video,second,x1,y1,x2,y2,action")
    with pytest.raises(ManifestError, match=r":1: second 'second' is not a .*; remove a header"):
        read_box_list(listing, BoxListOptions())
    write(listing, "b,1,0,0,1,1,1")
    with pytest.raises(ManifestError, match=r"data.root=.*nope: no such folder; set it to that of"):
        read_box_list(listing, BoxListOptions(root=str(tmp_path / "nope")))
    with pytest.raises(ManifestError, match=r"detect.label_map=nope.txt: no such file; write one"):
        read_box_list(listing, BoxListOptions(label_map="nope.txt"))
    with pytest.raises(ManifestError, match=r"detect.excluded=nope.csv: no such file; write `vid"):
        read_box_list(listing, BoxListOptions(excluded="nope.csv"))
    excluded = write(tmp_path / "excluded.csv", "b")
    with pytest.raises(ManifestError, match=r"excluded.csv:1: 'b' is not `video,second`; correct"):
        read_box_list(listing, BoxListOptions(excluded=str(excluded)))
    with pytest.raises(ManifestError, match=r"no key frames left by detect.min_score=1;"):
        write(listing, "b,1,0,0,1,1,0.5")
        read_scored_boxes(listing, BoxListOptions(), min_score=1)
    (tmp_path / "other.pbtxt").touch()
    write(listing, "b,1,0,0,1,1,1")
    with pytest.raises(
        ManifestError, match=r"needs the names of its classes: labels.txt, labels.j"
    ):
        read_box_list(listing, BoxListOptions())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('item { name: "a" }', r":1: has no name or no id; write item \{ name: \"stand\" id: 12"),
        (
            'item { name: "a" id: 1 }\nitem { name: "b" id: 1 }',
            r":2: class 'b', id 1: the name or the id comes twice; names and ids must differ",
        ),
        ("", r"has no classes; write item .* for each, or download AVA's label map again"),
    ],
)
def test_messages_about_label_maps(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "map.pbtxt"
    file.write_text(text)
    with pytest.raises(ManifestError, match=message):
        read_box_classes(file)


def test_digests_tell_what_changed(listing: Path) -> None:
    def digest(*lines: str) -> dict[str, object]:
        return list_digest(read_box_list(write(listing, *lines), BoxListOptions()))

    before = digest("b,1,0,0,1,1,1,1", "b,1,0,0,0.5,1,12,2")
    assert describe_changes(before, digest("b,1,0,0,1,1,1,1", "b,1,0,0,0.5,1,12,2")) == ""
    swapped = digest("b,1,0,0,1,1,12,1", "b,1,0,0,0.5,1,1,2")
    assert describe_changes(before, swapped) == "other labels"
    moved = digest("b,1,0,0,1,1,1,1", "b,1,0,0,0.6,1,12,2")
    assert describe_changes(before, moved) == "other videos or segments"
    later = digest("b,2,0,0,1,1,1,1", "b,2,0,0,0.5,1,12,2")
    assert describe_changes(before, later) == "other videos or segments"
