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

from hiera_video.data import check
from hiera_video.data.clips import ClipConfig
from hiera_video.data.manifest import Manifest, Record, read_manifest
from hiera_video.data.quarantine import Watch
from hiera_video.data.shards import write_shards

ROOT = Path(__file__).parents[2]
CLASSES = ("abseiling", "zumba")


def make_set(videos: Any, folder: Path) -> dict[str, str]:
    """30 + 10 videos laid out as class folders with lists; returns what is wrong, by name."""
    wrong = {}
    for split, count in (("train", 30), ("val", 10)):
        lines = []
        for number in range(count):
            name = f"{split}/{CLASSES[number % 2]}/a b_{number}.mp4"
            frames = 10 if number == 4 else 70 + (number + (40 if split == "val" else 0)) % 60
            videos.write(f"set/{name}", frames, fps=25 if number % 3 else 30, crf=18 if split == "train" else 12)
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
    for name, reason in (("train/abseiling/a b_20.mp4", "corrupt"), ("val/zumba/a b_5.mp4", "corrupt")):
        data = bytearray((folder / name).read_bytes())
        start, end = (
            data.index(b"mdat") + 4,
            data.index(b"moov") if data.index(b"moov") > data.index(b"mdat") else len(data),
        )
        third = (end - start) // 3
        data[start + third : start + 2 * third] = bytes(third)  # in the middle: opening does not notice
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
    clean = read_manifest(str(tmp_path / "out/train.csv"), root=str(folder / "train"))
    assert len(clean.records) == 26 and clean.class_names == CLASSES
    assert all(Path(record.path).is_file() for record in clean.records)
    assert f"data.index={tmp_path}/out/packets.index: the packets of 35 videos" in done.stderr
    page = (tmp_path / "out/report.html").read_text()
    assert "26</b> of <b>30</b>" in page and "a b_20.mp4: " in page and "http" not in page


def test_workers_and_none_say_the_same_and_quick_sees_less(videos: Any, tmp_path: Path) -> None:
    path = videos.write("a.mp4", 130)
    videos.write("b.mp4", 40)
    manifest = read_manifest(str(tmp_path))
    watch = Watch()
    alone, pooled = (list(check.scan(manifest, decoder="pyav", workers=n, watch=watch)) for n in (0, 2))
    assert alone == pooled and [item.num_frames for item in alone] == [130, 40]
    assert alone[0].digest == hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() and alone[
        0
    ].seconds == pytest.approx(130 / 30)
    assert list(check.scan(manifest, decoder="pyav", workers=0, watch=watch, quick=True)) == alone


def test_shards_are_checked_as_files_are(videos: Any, tmp_path: Path) -> None:
    for number in range(4):
        videos.write(f"set/{number}.mp4", 20 + number)
    (tmp_path / "set/1.mp4").write_bytes(b"no video at all")
    files = read_manifest(str(tmp_path / "set"))
    index = write_shards(files, tmp_path / "tars", "train")
    here, away = read_manifest(str(index)), read_manifest(f"file://{index}")
    expected = list(check.scan(files, decoder="pyav", workers=0, watch=Watch()))
    for stored in (here, away):
        found = list(check.scan(stored, decoder="pyav", workers=0, watch=Watch()))
        assert [(item.digest, item.reason, item.num_frames) for item in found] == [
            (item.digest, item.reason, item.num_frames) for item in expected
        ]
        clean, root = check.write_clean(tmp_path, "train", stored, found)
        assert clean == tmp_path / "train.index.json"
        kept = read_manifest(str(clean), root=root)
        assert [record.stored for record in kept.records] == [stored.records[row].stored for row in (0, 2, 3)]


def checked(row: int, path: str, digest: str | None = "x", **facts: Any) -> check.Checked:
    return check.Checked(row=row, path=path, digest=digest, **facts)


def test_arithmetic() -> None:
    assert check.histogram([30.0, 25.0, 29.97, 30.0]) == {"25": 1, "29.97": 1, "30": 2}
    assert check.histogram([5, 1, 1, 2, 2], most=2) == {"1": 2, "2": 2, "other": 1}
    groups = check.overlap(
        {
            "train": [checked(0, "/a"), checked(1, "/b", "y"), checked(2, "/c", "y"), checked(3, "/d", None)],
            "val": [checked(0, "/v")],
        }
    )
    assert [group["files"] for group in groups] == [["train: /a", "val: /v"], ["train: /b", "train: /c"]]
    assert check.class_order(["Petting_animal_(not_cat)", "b"], ["petting animal (not cat)", "b"]) == []
    assert check.class_order(["a"], ["a", "b"]) == ["1 classes here, 2 in the known list"]
    assert check.class_order(["a", "x"], ["a", "b"])[0].endswith("(which does not have it)")


def test_a_window_read_twice_is_no_double_and_keeps_its_times() -> None:
    records = tuple(
        Record(path="/r/s/a.mp4", label=(1, 2), row=row, start_seconds=float(row), end_seconds=row + 1.5)
        for row in range(2)
    )
    manifest = Manifest(records=records, class_names=None, multi_label=True, source="x")
    found = [checked(row, "/r/s/a.mp4", num_frames=90, fps=30.0) for row in range(2)]
    assert check.overlap({"train": found}) == []
    assert check.clean_lines(manifest, found) == ("/r/s", ["a.mp4 1;2 0 1.5\n", "a.mp4 1;2 1 2.5\n"])
    assert check.summary(found, manifest, ClipConfig())["short"] == []


def test_the_order_of_kinetics_400_is_known_from_folders() -> None:
    from torchvision.models._meta import _KINETICS400_CATEGORIES as known

    def listed(names: list[str]) -> Manifest:
        records = tuple(
            Record(path=f"/k/{name.replace(' ', '_')}/{i}.mp4", label=i, row=i) for i, name in enumerate(names)
        )
        return Manifest(records=records, class_names=None, multi_label=False, source="x")

    names = check.names_in_order(listed(known))
    assert names is not None and check.class_order(names, known) == []
    swapped = [known[1], known[0], *known[2:]]
    assert len(check.class_order(check.names_in_order(listed(swapped)) or (), known)) == 2
    one_folder = Manifest(
        records=tuple(Record(path=f"/k/{i}.mp4", label=i, row=i) for i in range(3)),
        class_names=None, multi_label=False, source="x",
    )  # fmt: skip
    assert check.names_in_order(one_folder) is None


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    for arguments, words in (
        (["--out", "x"], "error: nothing to check: name a manifest with --train, --val or --test"),
        (["--out", "x", "--train", "nowhere", "--clip", "16"], "error: --clip 16: must be frames x stride, like 16x4"),
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
