"""A data set with known faults: the check finds exactly those, and its clean manifest trains."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hiera_video.data.loading.quarantine import QuarantinePolicy
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare import check
from hiera_video.data.prepare.tar_writer import write_shards
from hiera_video.data.sampling import ClipConfig
from hiera_video.errors import DecodeError, ManifestError
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import Limits

ROOT = Path(__file__).parents[3]
CLASSES = ("abseiling", "zumba")


def make_set(videos: Any, folder: Path) -> dict[str, str]:
    """30 + 10 videos laid out as class folders with lists; returns what is wrong, by name."""
    wrong = {}
    for split, count in (("train", 30), ("val", 10)):
        lines = []
        for number in range(count):
            name = f"{split}/{CLASSES[number % 2]}/a b_{number}.mp4"
            frames = 10 if number == 4 else 70 + (number + (40 if split == "val" else 0)) % 60
            videos.write(
                f"set/{name}",
                frames,
                fps=25 if number % 3 else 30,
                crf=18 if split == "train" else 12,
            )
            lines.append(f"{name} {number % 2}\n")
        (folder / f"{split}.csv").write_text("".join(lines))
    damage = {
        "train/zumba/a b_3.mp4": b"",
        "train/abseiling/a b_8.mp4": b"no video at all",
        "train/zumba/a b_11.mp4": None,
    }
    for name, content in damage.items():
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
    wrong |= dict(zip(damage, ("empty", "container", "missing")))
    for name, reason in (
        ("train/abseiling/a b_20.mp4", "corrupt"),
        ("val/zumba/a b_5.mp4", "corrupt"),
    ):
        data = bytearray((folder / name).read_bytes())
        start, end = (
            data.index(b"mdat") + 4,
            data.index(b"moov") if data.index(b"moov") > data.index(b"mdat") else len(data),
        )
        third = (end - start) // 3
        data[start + third : start + 2 * third] = bytes(
            third
        )  # in the middle: opening does not notice
        (folder / name).write_bytes(data)
        wrong[name] = reason
    shutil.copy(folder / "train/abseiling/a b_0.mp4", folder / "val/abseiling/a b_0.mp4")
    return wrong


def test_the_tool_finds_exactly_what_is_wrong(videos: Any, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    wrong = make_set(videos, folder) if not folder.mkdir() else {}
    (tmp_path / "right.txt").write_text("zumba\nabseiling\n")
    done = subprocess.run(
        [
            *(sys.executable, "tools/check_data.py", "--train", str(folder / "train.csv"), "--val", str(folder / "val.csv")),
            *("--out", str(tmp_path / "out"), "--classes", str(tmp_path / "right.txt"), "--index"),
        ],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr  # 5 of 40 are over the limit of 5 %
    results = json.loads((tmp_path / "out/check.json").read_text())
    found = {
        str(Path(item["path"]).relative_to(folder)): item["reason"]
        for split in results["splits"].values()
        for item in split["broken"]
    }
    assert found == wrong
    train = results["splits"]["train"]
    assert train["readable"] == 26 and [item["num_frames"] for item in train["short"]] == [10]
    assert sum(train["fps"].values()) == 26 and set(train["fps"]) == {"25", "30"}
    assert train["labels"] == {"0": 15, "1": 15}
    assert [group["splits"] for group in results["overlap"]] == [["train", "val"]]
    assert "a b_0.mp4" in results["overlap"][0]["files"][0]
    assert results["class_order"] == [
        "class 0 is 'abseiling' here, 'zumba' in the known list (which has it at 1)",
        "class 1 is 'zumba' here, 'abseiling' in the known list (which has it at 0)",
    ]
    for split, count in (("train", 26), ("val", 9)):
        clean = read_manifest(
            str(tmp_path / f"out/{split}.csv"), root=str(folder)
        )  # one data.root for both
        assert len(clean.records) == count and clean.class_names == CLASSES
        assert all(Path(record.path).is_file() for record in clean.records)
        assert (
            f"{split}: clean list: {tmp_path}/out/{split}.csv with data.root={folder}\n"
            in done.stderr
        )
    assert f"data.index={tmp_path}/out/packets.index: the packets of 35 videos" in done.stderr
    why = f"empty 1, container 1, missing 1, corrupt 1: {folder}/train/zumba/a b_3.mp4 for one"
    assert f"train: 26 of 30 videos can be read; {why}" in done.stderr
    page = (tmp_path / "out/report.html").read_text()
    assert "26</b> of <b>30</b>" in page and "a b_20.mp4: " in page and "http" not in page


def test_workers_and_none_say_the_same_and_quick_sees_less(videos: Any, tmp_path: Path) -> None:
    path = videos.write("a.mp4", 130)
    videos.write("b.mp4", 40)
    manifest = read_manifest(str(tmp_path))
    quarantine = QuarantinePolicy()
    alone, pooled = (
        list(check.scan(manifest, decoder="pyav", workers=n, quarantine=quarantine)) for n in (0, 2)
    )
    assert alone == pooled and [item.num_frames for item in alone] == [130, 40]
    assert alone[0].digest == hashlib.blake2b(
        path.read_bytes(), digest_size=16
    ).hexdigest() and alone[0].seconds == pytest.approx(130 / 30)
    assert (
        list(check.scan(manifest, decoder="pyav", workers=0, quarantine=quarantine, quick=True))
        == alone
    )


def test_shards_are_checked_as_files_are(videos: Any, tmp_path: Path) -> None:
    for number in range(4):
        videos.write(f"set/{number}.mp4", 20 + number)
    (tmp_path / "set/1.mp4").write_bytes(b"no video at all")
    files = read_manifest(str(tmp_path / "set"))
    index = write_shards(files, tmp_path / "tars", "train")
    here, away = read_manifest(str(index)), read_manifest(f"file://{index}")
    expected = list(check.scan(files, decoder="pyav", workers=0, quarantine=QuarantinePolicy()))
    for stored in (here, away):
        found = list(check.scan(stored, decoder="pyav", workers=0, quarantine=QuarantinePolicy()))
        assert [(item.digest, item.reason, item.num_frames) for item in found] == [
            (item.digest, item.reason, item.num_frames) for item in expected
        ]
        clean = check.plan_clean(tmp_path / "out", {"train": stored})["train"]
        assert clean.path == tmp_path / "out/train.index.json"
        clean.path.parent.mkdir(exist_ok=True)
        check.write_clean(clean, stored.source, found)
        kept = read_manifest(str(clean.path), root=clean.root)
        clean.path.unlink()
        assert [record.shard_video for record in kept.records] == [
            stored.records[row].shard_video for row in (0, 2, 3)
        ]


def checked(row: int, path: str, digest: str | None = "x", **facts: Any) -> check.Checked:
    return check.Checked(row=row, path=path, digest=digest, **facts)


def test_arithmetic() -> None:
    assert check.histogram([30.0, 25.0, 29.97, 30.0]) == {"25": 1, "29.97": 1, "30": 2}
    assert check.histogram([5, 1, 1, 2, 2], most=2) == {"1": 2, "2": 2, "other": 1}
    groups = check.overlap(
        {
            "train": [
                checked(0, "/a"),
                checked(1, "/b", "y"),
                checked(2, "/c", "y"),
                checked(3, "/d", None),
            ],
            "val": [checked(0, "/v")],
        }
    )
    assert [group["files"] for group in groups] == [
        ["train: /a", "val: /v"],
        ["train: /b", "train: /c"],
    ]
    assert (
        check.class_order(["Petting_animal_(not_cat)", "b"], ["petting animal (not cat)", "b"])
        == []
    )
    assert check.class_order(["a"], ["a", "b"]) == ["1 classes here, 2 in the known list"]
    assert check.class_order(["a", "x"], ["a", "b"])[0].endswith("(which does not have it)")


def test_a_window_read_twice_is_no_double_and_keeps_its_times() -> None:
    records = tuple(
        Record(
            path="/r/s/a.mp4",
            label=(1, 2),
            row=row,
            start_seconds=float(row),
            end_seconds=row + 1.5,
        )
        for row in range(2)
    )
    manifest = Manifest(records=records, class_names=None, multi_label=True, source="x")
    found = [checked(row, "/r/s/a.mp4", num_frames=90, fps=30.0) for row in range(2)]
    assert check.overlap({"train": found}) == []
    clean = check.plan_clean(Path("/r"), {"train": manifest})["train"]
    assert (clean.root, clean.lines) == ("/r/s", ("a.mp4 1;2 0 1.5\n", "a.mp4 1;2 1 2.5\n"))
    assert check.summary(found, manifest, ClipConfig())["short"] == []


def test_the_order_of_kinetics_400_is_known_from_folders() -> None:
    from torchvision.models._meta import _KINETICS400_CATEGORIES as known

    def listed(names: list[str]) -> Manifest:
        records = tuple(
            Record(path=f"/k/{name.replace(' ', '_')}/{i}.mp4", label=i, row=i)
            for i, name in enumerate(names)
        )
        return Manifest(records=records, class_names=None, multi_label=False, source="x")

    names = check.names_in_order(listed(known).records)
    assert names is not None and check.class_order(names, known) == []
    swapped = [known[1], known[0], *known[2:]]
    assert len(check.class_order(check.names_in_order(listed(swapped).records) or (), known)) == 2
    one_folder = Manifest(
        records=tuple(Record(path=f"/k/{i}.mp4", label=i, row=i) for i in range(3)),
        class_names=None, multi_label=False, source="x",
    )  # fmt: skip
    assert check.names_in_order(one_folder.records) is None
    assert check.names_in_order(()) is None


def run_tool(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools/check_data.py"), "--workers", "0", *options],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip


def test_clean_lists_of_all_splits_share_classes_and_root(videos: Any, tmp_path: Path) -> None:
    for name in ("train/a/0", "train/b/0", "train/c/0", "val/b/0", "val/c/1"):
        videos.write(f"videos/{name}.mp4", 5)
    done = run_tool(tmp_path, "--train", "videos/train", "--val", "videos/val", "--out", "out")
    assert done.returncode == 0, done.stderr
    train, val = (
        read_manifest(str(tmp_path / f"out/{split}.csv"), root=str(tmp_path / "videos"))
        for split in ("train", "val")
    )
    assert train.class_names == val.class_names == ("a", "b", "c")
    for manifest in (train, val):
        assert [Path(r.path).parent.name for r in manifest.records] == [
            "abc"[int(str(r.label))] for r in manifest.records
        ]
    again = run_tool(
        tmp_path, "--val", "videos/val", "--out", "out"
    )  # its own lists may be written anew
    assert again.returncode == 0, again.stderr
    assert (
        read_manifest(str(tmp_path / "out/val.csv"), root=str(tmp_path / "videos/val")).records
        == val.records
    )
    assert run_tool(tmp_path, "--train", "videos/train", "--out", "out").returncode == 0


def test_no_list_of_the_users_is_written_over(videos: Any, tmp_path: Path) -> None:
    videos.write("own/a.mp4", 5)
    (tmp_path / "own/broken.mp4").write_bytes(b"no video")
    for name in ("train.csv", "val.csv"):
        (tmp_path / "own" / name).write_text("a.mp4 0\nbroken.mp4 0\n")
    for options, words in (
        (
            ("--train", "own/train.csv"),
            "error: own/train.csv: is the list to be read, and would be written over; choose another folder to write to",
        ),
        (
            ("--val", "own/train.csv"),
            "error: own/val.csv: is there already, not written by this tool; choose another folder to write to, or move it",
        ),
    ):
        done = run_tool(tmp_path, *options, "--out", "own")
        assert done.returncode == 2 and words in done.stderr
    found = sorted(path.name for path in (tmp_path / "own").iterdir())
    assert found == ["a.mp4", "broken.mp4", "train.csv", "val.csv"]
    assert (tmp_path / "own/train.csv").read_text() == "a.mp4 0\nbroken.mp4 0\n"


def split_of(source: str, names: tuple[str, ...] | None, *labels: int) -> Manifest:
    records = tuple(
        Record(path=f"/v/{source}/{row}.mp4", label=label, row=row)
        for row, label in enumerate(labels)
    )
    return Manifest(records=records, class_names=names, multi_label=False, source=source)


def test_one_order_of_classes(tmp_path: Path) -> None:
    train, val, plain = (
        split_of("train", ("a", "b", "c"), 0, 1, 2),
        split_of("val", ("c", "b"), 0, 1),
        split_of("x", None, 2),
    )
    found, names = check.in_one_order({"train": train, "val": val, "test": plain}, tmp_path)
    assert names == ("a", "b", "c") and found["train"] == train
    assert [record.label for record in found["val"].records] == [2, 1]
    assert [record.label for record in found["test"].records] == [
        2
    ]  # names no classes: its indices are trusted
    for other, words in (
        (
            split_of("val", ("a", "d"), 0),
            "val: names the class 'd', which train does not, and they would share one labels",
        ),
        (
            split_of("val", None, 3),
            "val: has labels up to 3, but train names 3 classes, and they would share one labels",
        ),
    ):
        with pytest.raises(
            ManifestError,
            match=words + " file; write this list into a folder of its own, or give both",
        ):
            check.in_one_order({"train": train, "val": other}, tmp_path)
    (tmp_path / "labels.txt").write_text("c\nb\n")
    assert check.in_one_order({"val": val}, tmp_path)[1] == ("c", "b")
    with pytest.raises(
        ManifestError, match=r"train: names the class 'a', which .*/labels.txt does not"
    ):
        check.in_one_order({"train": train}, tmp_path)


def test_one_root_for_all_and_for_what_links_lead_to(tmp_path: Path) -> None:
    for folder in ("v/train/a", "v/val/b", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    paths = [str(tmp_path / name) for name in ("v/train/a/0.mp4", "v/val/b/0.mp4")]
    assert check.common_root(paths) == str(tmp_path / "v") and check.common_root(paths[:1]) == str(
        tmp_path / "v/train/a"
    )
    (tmp_path / "v/test").symlink_to("../elsewhere")
    paths.append(str(tmp_path / "v/test/0.mp4"))
    (tmp_path / "elsewhere/0.mp4").write_bytes(b"")
    assert check.common_root(paths) == str(
        tmp_path
    )  # a list's videos may not lie behind a link out of its root
    manifest = Manifest(
        records=tuple(Record(path=path, label=0, row=row) for row, path in enumerate(paths)),
        class_names=None, multi_label=False, source="x",
    )  # fmt: skip
    clean = check.plan_clean(tmp_path, {"train": manifest})["train"]
    check.write_clean(clean, "x", [checked(row, path) for row, path in enumerate(paths)])
    assert read_manifest(str(clean.path), root=clean.root).records == manifest.records


def test_a_large_picture_is_no_fault(
    videos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 frames of 3840x2160 are over the limit of one call; here the limit is small instead."""
    path = videos.write("a.mp4", 64)
    limits = Limits(max_bytes=10 * 64 * 48 * 3)
    with (
        pytest.raises(DecodeError, match="64 frames of 64x48 take"),
        PyAVReader(str(path), limits=limits) as video,
    ):
        video.frames(range(64))
    monkeypatch.setattr(check, "Limits", lambda: limits)
    monkeypatch.setattr(check, "open_video", lambda source, _: PyAVReader(source, limits=limits))
    (found,) = check.scan(
        read_manifest(str(tmp_path)), decoder="pyav", workers=0, quarantine=QuarantinePolicy()
    )
    assert (found.reason, found.num_frames) == (None, 64)


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "libvpx"), ("a.mp4", "libx264")])
def test_a_long_video_is_decoded_in_one_pass(
    videos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str
) -> None:
    videos.write(name, 250, codec=codec, gop=250)
    frames, whole = 0, PyAVReader._decode_all

    def counted(self: PyAVReader) -> Any:
        nonlocal frames
        for frame in whole(self):
            frames += 1
            yield frame

    monkeypatch.setattr(PyAVReader, "_decode_all", counted)
    (found,) = check.scan(
        read_manifest(str(tmp_path)), decoder="pyav", workers=0, quarantine=QuarantinePolicy()
    )
    counting = (
        250 + 1 if codec == "libvpx" else 0
    )  # its packets do not tell the frames, nor the size
    assert (found.reason, found.num_frames, frames) == (None, 250, counting + 250)


def test_a_stretch_without_frames_is_found(videos: Any, tmp_path: Path) -> None:
    videos.write("a.mp4", 60)
    (tmp_path / "train.csv").write_text("a.mp4 0 0.5 1\na.mp4 0 100 110\n")
    found = list(
        check.scan(
            read_manifest(str(tmp_path / "train.csv")),
            decoder="pyav",
            workers=0,
            quarantine=QuarantinePolicy(),
        )
    )
    assert [item.reason for item in found] == [None, "empty_window"]
    assert "a.mp4: has no frame from 100.0 to 110.0 s; its frames are at 0.00 to 1.97 s" in str(
        found[1].message
    )


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    for arguments, words in (
        (["--out", "x"], "error: nothing to check: name a manifest with --train, --val or --test"),
        (
            ["--out", "x", "--train", "nowhere", "--clip", "16"],
            "error: --clip 16: must be frames x stride, like 16x4",
        ),
        (
            ["--out", "x", "--train", "nowhere", "--index", "--decoder", "decord"],
            "error: --index goes with --decoder pyav, not decord; change one of them",
        ),
    ):
        done = subprocess.run(
            [sys.executable, str(ROOT / "tools/check_data.py"), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and words in done.stderr and not (tmp_path / "x").exists()
