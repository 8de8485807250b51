"""The check finds exactly the known faults of a data set, and its clean lists can be read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hiera_video.cli import check_data
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare.check import DuplicateFiles, find_duplicates, histogram, summarise
from hiera_video.data.prepare.scan import ScannedVideo
from hiera_video.data.sampling import ClipConfig
from hiera_video.errors import ConfigError, ManifestError

CLASSES = ("abseiling", "zumba")


def run(*arguments: str | Path) -> int:
    """Run the command in this process, without workers."""
    return check_data.main(["--workers", "0", *map(str, arguments)])


def make_set(videos: Any, folder: Path) -> dict[str, str]:
    """Write 30 + 10 videos in class folders and their lists; return the faults by file name."""
    for split, count in (("train", 30), ("val", 10)):
        lines = []
        for number in range(count):
            name = f"{split}/{CLASSES[number % 2]}/a b_{number}.mp4"
            frames = 10 if number == 4 else 70 + (number + (40 if split == "val" else 0)) % 60
            fps, crf = 25 if number % 3 else 30, 18 if split == "train" else 12
            videos.write(f"set/{name}", frames, fps=fps, crf=crf)
            lines.append(f"{name} {number % 2}\n")
        (folder / f"{split}.csv").write_text("".join(lines))
    (folder / "train/zumba/a b_3.mp4").write_bytes(b"")
    (folder / "train/abseiling/a b_8.mp4").write_bytes(b"no video at all")
    (folder / "train/zumba/a b_11.mp4").unlink()
    for name in ("train/abseiling/a b_20.mp4", "val/zumba/a b_5.mp4"):
        damage_middle(folder / name)
    shutil.copy(folder / "train/abseiling/a b_0.mp4", folder / "val/abseiling/a b_0.mp4")
    return {
        "train/zumba/a b_3.mp4": "empty",
        "train/abseiling/a b_8.mp4": "container",
        "train/zumba/a b_11.mp4": "missing",
        "train/abseiling/a b_20.mp4": "corrupt",
        "val/zumba/a b_5.mp4": "corrupt",
    }


def damage_middle(path: Path) -> None:
    """Zero the middle third of the media data, which opening the file does not notice."""
    data = bytearray(path.read_bytes())
    start, index = data.index(b"mdat") + 4, data.index(b"moov")
    third = ((index if index > start else len(data)) - start) // 3
    data[start + third : start + 2 * third] = bytes(third)
    path.write_bytes(data)


def test_the_tool_finds_exactly_the_faults(
    videos: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder, out = tmp_path / "set", tmp_path / "out"
    folder.mkdir()
    faults = make_set(videos, folder)
    (tmp_path / "right.txt").write_text("zumba\nabseiling\n")
    code = check_data.main(
        [
            *("--train", str(folder / "train.csv"), "--val", str(folder / "val.csv")),
            *("--out", str(out), "--classes", str(tmp_path / "right.txt"), "--index"),
        ]
    )
    assert code == 3  # 5 of 40 exceed the limit of 5 %
    results = json.loads((out / "check.json").read_text())
    found = {
        str(Path(item["path"]).relative_to(folder)): item["reason"]
        for split in results["splits"].values()
        for item in split["broken"]
    }
    assert found == faults
    train = results["splits"]["train"]
    assert train["readable"] == 26 and [item["num_frames"] for item in train["short"]] == [10]
    assert sum(train["fps"].values()) == 26 and set(train["fps"]) == {"25", "30"}
    assert train["labels"] == {"0": 15, "1": 15}
    assert [group["splits"] for group in results["overlap"]] == [["train", "val"]]
    assert "a b_0.mp4" in results["overlap"][0]["files"][0]
    assert results["class_order"] == [
        "class 0 is 'abseiling', but 'zumba' in the reference (which has 'abseiling' at 1)",
        "class 1 is 'zumba', but 'abseiling' in the reference (which has 'zumba' at 0)",
    ]
    for split, count in (("train", 26), ("val", 9)):
        clean = read_manifest(str(out / f"{split}.csv"), root=str(folder))
        assert len(clean.records) == count and clean.class_names == CLASSES
        assert all(Path(record.path).is_file() for record in clean.records)
        assert f"{split}: clean list: {out}/{split}.csv with data.root={folder}\n" in caplog.text
    assert "files with the same bytes: 1 group, 1 across splits; class order: 2 diff" in caplog.text
    assert f"data.index={out}/packets.index: packets of 35 videos" in caplog.text
    reasons = "empty 1, container 1, missing 1, corrupt 1"
    assert (
        f"train: 26 of 30 videos can be read; {reasons}; first: {folder}/train/zumba/a b_3.mp4"
        in caplog.text
    )
    page = (out / "report.html").read_text()
    assert "26</b> of <b>30</b>" in page and "a b_20.mp4: " in page and "http" not in page


def test_clean_lists_share_classes_and_root_and_may_be_rewritten(
    videos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train/a/0", "train/b/0", "train/c/0", "val/b/0", "val/c/1"):
        videos.write(f"videos/{name}.mp4", 5)
    assert run("--train", "videos/train", "--val", "videos/val", "--out", "out") == 0
    train, val = (
        read_manifest(f"out/{split}.csv", root=str(tmp_path / "videos"))
        for split in ("train", "val")
    )
    assert train.class_names == val.class_names == ("a", "b", "c")
    for manifest in (train, val):
        folders = [Path(record.path).parent.name for record in manifest.records]
        assert folders == ["abc"[int(str(record.label))] for record in manifest.records]
    assert run("--val", "videos/val", "--out", "out") == 0
    again = read_manifest("out/val.csv", root=str(tmp_path / "videos/val"))
    assert again.records == val.records
    assert run("--train", "videos/train", "--out", "out") == 0


def test_the_users_list_is_refused_before_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    for name in ("train.csv", "val.csv"):
        (tmp_path / "own" / name).write_text("a.mp4 0\n")
    with pytest.raises(ConfigError, match=r"own/train.csv: is the list that is read and would be"):
        run("--train", "own/train.csv", "--out", "own")
    with pytest.raises(ConfigError, match=r"own/val.csv: exists and was not written by this tool"):
        run("--val", "own/train.csv", "--out", "own")
    found = sorted(path.name for path in (tmp_path / "own").iterdir())
    assert found == ["train.csv", "val.csv"]
    assert (tmp_path / "own/train.csv").read_text() == "a.mp4 0\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to check: pass a manifest with --train, --val or --test"),
        (
            ["--train", "nowhere", "--clip", "16"],
            "--clip 16: must be frames x stride, like 16x4",
        ),
        (
            ["--train", "nowhere", "--index", "--decoder", "decord"],
            "--index needs --decoder pyav, not decord; change one of them",
        ),
        (
            ["--train", "nowhere", "data.decoder=frames"],
            "data.decoder=frames: use --decoder instead",
        ),
        (["--train", "nowhere", "seed=1"], "seed=1: unknown argument; name the lists with --train"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run("--out", tmp_path / "x", *arguments)
    assert not (tmp_path / "x").exists()


def test_launch(tmp_path: Path) -> None:
    tool = Path(__file__).parents[3] / "tools/check_data.py"
    command = [sys.executable, str(tool), "--out", str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nothing to check: pass a manifest with --train")


# -- arithmetic --------------------------------------------------------------------------------


def scanned(row: int, path: str, digest: str | None = "x", **facts: Any) -> ScannedVideo:
    return ScannedVideo(row=row, path=path, digest=digest, **facts)


def test_histogram() -> None:
    assert histogram([30.0, 25.0, 29.97, 30.0]) == {"25": 1, "29.97": 1, "30": 2}
    assert histogram([5, 1, 1, 2, 2], max_rows=2) == {"1": 2, "2": 2, "other": 1}


def test_duplicates_across_splits_come_first() -> None:
    train = [scanned(0, "/b", "y"), scanned(1, "/c", "y"), scanned(2, "/a"), scanned(3, "/d", None)]
    assert find_duplicates({"train": train, "val": [scanned(0, "/v")]}) == [
        DuplicateFiles(splits=["train", "val"], files=["train: /a", "val: /v"]),
        DuplicateFiles(splits=["train"], files=["train: /b", "train: /c"]),
    ]


def test_two_segments_of_a_file_are_no_duplicates() -> None:
    videos = [scanned(row, "/a.mp4", num_frames=90, fps=30.0) for row in range(2)]
    assert find_duplicates({"train": videos}) == []


def test_copies_of_frame_folders_are_duplicates(videos: Any, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number, label in ((0, "a"), (1, "b"), (2 if split == "train" else 0, "b")):
            folder = tmp_path / split / label / f"{number}"
            folder.mkdir(parents=True)
            for frame in range(4):
                picture = Image.fromarray(videos.frame(10 * number + frame))
                picture.save(folder / f"{frame}.png")
    splits = ("--train", tmp_path / "train", "--val", tmp_path / "val")
    assert run(*splits, "--decoder", "frames", "--out", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "check.json").read_text())["overlap"]
    assert [group["splits"] for group in found] == [["train", "val"], ["train", "val"]]
    assert sorted(len(group["files"]) for group in found) == [2, 3]


def test_frame_folders_read_as_videos_have_a_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "frames/0").mkdir(parents=True)
    (tmp_path / "list.txt").write_text("frames/0 20 0\n")
    with caplog.at_level("INFO"):
        assert run("--train", tmp_path / "list.txt", "--out", tmp_path / "out") == 3
    assert caplog.messages[0] == (
        f"train: 0 of 1 video can be read; not_a_file 1; first: {tmp_path}/frames/0: a folder, "
        "not a file; data.decoder=frames reads folders of pictures"
    )


def test_summary() -> None:
    records = tuple(
        Record(path=f"/{row}.mp4", label=label, row=row)
        for row, label in enumerate([(0, 1), (1,), None])
    )
    names = ("up", "down", "round")
    manifest = Manifest(records=records, class_names=names, multi_label=True, source="x")
    found = [
        scanned(0, "/0.mp4", num_frames=64, fps=30.0, seconds=2.13, width=64, height=48),
        scanned(1, "/1.mp4", num_frames=63, fps=30.0, seconds=2.1, width=64, height=48),
        scanned(2, "/2.mp4", reason="missing", message="/2.mp4: no such file"),
    ]
    summary = summarise(found, manifest, ClipConfig())
    assert (summary.videos, summary.readable, summary.reasons) == (3, 2, {"missing": 1})
    assert summary.broken == [
        {"row": 2, "path": "/2.mp4", "reason": "missing", "message": "/2.mp4: no such file"}
    ]
    assert summary.short == [{"row": 1, "path": "/1.mp4", "num_frames": 63}]
    assert (summary.fps, summary.seconds) == ({"30": 2}, {"2": 2})
    assert (summary.sizes, summary.labels) == ({"64×48": 2}, {"up": 1, "down": 2})
    assert (summary.without_label, summary.classes_without_video) == (1, ["round"])


@pytest.mark.parametrize("odd", [b"caf\xe9", b" b ", b"=1+1", b"\x1b[31m", b"$x_$"], ids=repr)
def test_odd_names_keep_their_labels(videos: Any, tmp_path: Path, odd: bytes) -> None:
    """I 4.3, 4.10: class folders and files; blanks moved the labels, bytes ended the run."""
    name = os.fsdecode(odd)
    for index, folder in enumerate(("a", name, "z")):
        videos.write(f"set/{folder}/{name}.mp4", 4 + index)
    assert run("--train", tmp_path / "set", "--out", tmp_path / "out", "--quick") == 0
    before = read_manifest(str(tmp_path / "set"))
    after = read_manifest(str(tmp_path / "out/train.csv"), root=str(tmp_path / "set"))
    assert (after.class_names, after.records) == (before.class_names, before.records)
    report = (tmp_path / "out/report.html").read_bytes()
    assert b"\x1b" not in (tmp_path / "out/check.json").read_bytes() and report.decode()


def test_names_keep_their_direction_in_the_report(videos: Any, tmp_path: Path) -> None:
    videos.write("set/0.mp4", 4)
    (tmp_path / "set/labels.txt").write_text("up\nفتح\nأغلق\n")
    (tmp_path / "set/list.csv").write_text("0.mp4 0\n")
    assert run("--train", tmp_path / "set/list.csv", "--out", tmp_path / "out", "--quick") == 0
    report = (tmp_path / "out/report.html").read_text()
    assert "2 classes have no video</span>:\n<bdi>فتح</bdi>, <bdi>أغلق</bdi>.</p>" in report


def test_a_line_break_in_a_name_is_refused_before_the_scan(videos: Any, tmp_path: Path) -> None:
    """I 4.3: it broke the list."""
    videos.write("set/a/1\n2.mp4", 4)
    with pytest.raises(ManifestError, match=r"has a line break or quotes in its name"):
        run("--train", tmp_path / "set", "--out", tmp_path / "out", "--quick")
    assert not (tmp_path / "out").exists()


def test_links_are_followed_when_the_user_says_so(videos: Any, tmp_path: Path) -> None:
    """I 4.4: also by what the check writes."""
    videos.write("disk/b/1.mp4", 4)
    videos.write("set/a/2.mp4", 4)
    (tmp_path / "set/b").symlink_to(tmp_path / "disk/b")
    command = ("--train", tmp_path / "set", "--out", tmp_path / "out", "--quick")
    with pytest.raises(
        ManifestError, match=r"set data.follow_links=true .check-data, prepare: --f"
    ):
        run(*command)
    assert run(*command, "--follow-links") == 0
    clean = str(tmp_path / "out/train.csv")
    assert len(read_manifest(clean, root=str(tmp_path)).records) == 2


def test_a_negative_number_of_workers_is_refused_by_the_flags_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--workers -1: must be 0 or more$"):
        run("--train", tmp_path, "--out", tmp_path / "out", "--workers", "-1")
