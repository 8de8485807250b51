"""Files of segments: names that are hard to write, and videos without segments."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from hiera_video.eval.segments.files import (
    VideoSegments,
    segments_csv,
    segments_eaf,
    segments_json,
    segments_via,
)
from hiera_video.eval.segments.find import FoundSegment

NAMES = ("=1+1", 'a "b" <c> & \x1b', "wörter")


def video(path: str, *labels: int) -> VideoSegments:
    segments = [
        FoundSegment(label=label, start_seconds=number, end_seconds=number + 0.5, score=0.75)
        for number, label in enumerate(labels)
    ]
    return VideoSegments(path=path, duration_seconds=9.9999, segments=segments)


def test_csv_is_safe_in_a_spreadsheet() -> None:
    content = segments_csv([video("a,b.mp4", 0, 2), video("empty.mp4")], NAMES)
    assert content.decode() == (
        "path,start_seconds,end_seconds,label,score\n"
        '"a,b.mp4",0,0.5,\'=1+1,0.75\n'
        '"a,b.mp4",1,1.5,wörter,0.75\n'
    )


def test_json_lists_videos_without_segments() -> None:
    assert json.loads(segments_json([video("a.mp4", 2), video("empty.mp4")], NAMES)) == [
        {
            "path": "a.mp4",
            "duration_seconds": 10.0,
            "segments": [
                {"start_seconds": 0, "end_seconds": 0.5, "label": "wörter", "score": 0.75}
            ],
        },
        {"path": "empty.mp4", "duration_seconds": 10.0, "segments": []},
    ]


def test_elan_names_are_escaped() -> None:
    root = ElementTree.fromstring(segments_eaf(video("/x/ä b\udcff.mp4", 1, 1), NAMES))
    (tier,) = root.iter("TIER")
    assert tier.get("TIER_ID") == 'a "b" <c> & \\x1b'
    assert [value.text for value in tier.iter("ANNOTATION_VALUE")] == ["0.750", "0.750"]
    media = next(root.iter("MEDIA_DESCRIPTOR"))
    assert media.get("MEDIA_URL") == "file:///x/%C3%A4%20b%5Cudcff.mp4"
    assert root.find("HEADER/PROPERTY").text == "2"  # type: ignore[union-attr]
    empty = ElementTree.fromstring(segments_eaf(video("a.mkv"), NAMES))
    assert not list(empty.iter("TIER"))
    assert next(empty.iter("MEDIA_DESCRIPTOR")).get("MIME_TYPE") == "video/x-matroska"


def test_via_has_a_view_for_each_video() -> None:
    project = json.loads(segments_via([video("x/a.mp4", 1), video("b.mp4", 0, 2)], NAMES))
    assert project["project"]["vid_list"] == ["1", "2"]
    assert [file["src"] for file in project["file"].values()] == ["a.mp4", "b.mp4"]
    assert {key: (row["vid"], row["z"]) for key, row in project["metadata"].items()} == {
        "1_00000001": ("1", [0, 0.5]),
        "2_00000001": ("2", [0, 0.5]),
        "2_00000002": ("2", [1, 1.5]),
    }
    assert project["attribute"]["1"]["options"] == {name: name for name in NAMES}
