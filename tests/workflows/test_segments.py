"""Segments of videos with a trained run: printed, written, tested, with thresholds of its own."""

from __future__ import annotations

import csv
import gc
import json
import re
import shutil
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hiera_video as hv
from hiera_video.cli.main import run_command
from hiera_video.data.loading.map_videos import map_videos
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.eval.segments.settings import SegmentSettings
from hiera_video.video.encode import write_video
from hiera_video.workflows import sliding_window
from hiera_video.workflows.load_run import LoadedRun, override_run, to_loaded_run
from hiera_video.workflows.segments import score_video
from hiera_video.workflows.sliding_window import predict_windows, window_scores

NAMES = ("dark", "bright", "background")


class Brightness(nn.Module):
    """Scores by the mean of a clip: dark below -1, bright above 1, background between."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, clips: Tensor) -> Tensor:
        mean = clips.mean(dim=(1, 2, 3, 4)) + self.bias
        return torch.stack([-8 * mean - 8, 8 * mean - 8, torch.zeros_like(mean)], dim=1)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 20 s at 16 fps: grey, but dark from 4 to 7 s and bright from 10 to 15 s."""
    path = tmp_path_factory.mktemp("segments") / "film.mp4"
    levels = np.full(320, 115, np.uint8)
    levels[64:112], levels[160:240] = 20, 200
    write_video(path, np.broadcast_to(levels[:, None, None, None], (320, 40, 48, 3)), fps=16)
    return path


@pytest.fixture
def run(run_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A run whose model is `Brightness`, in a folder of its own."""
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    monkeypatch.setattr("hiera_video.workflows.predict.ModelSource.load", lambda _: loaded(folder))
    monkeypatch.setattr(
        "hiera_video.workflows.segments.to_loaded_run",
        lambda run: loaded(folder) if run == folder else to_loaded_run(run),
    )
    return folder


def loaded(folder: Path) -> LoadedRun:
    return replace(hv.load(folder), model=Brightness().eval(), class_names=NAMES)


def test_windows_decoded_together_are_the_same(run_folder: Path, films: Path) -> None:
    real = hv.load(run_folder)
    alone, together = (
        list(window_scores(real, films / "a.mp4", window=0.5, step=0.125, at_once=count))
        for count in (1, 5)
    )
    assert len(alone) == len(together) == 13  # the last group has three
    for one, other in zip(alone, together):
        assert torch.equal(one.probabilities, other.probabilities)
        assert replace(one, probabilities=0) == replace(other, probabilities=0) or (
            one.start_seconds,
            one.end_seconds,
            one.seen_seconds,
        ) == (other.start_seconds, other.end_seconds, other.seen_seconds)
    expected = list(predict_windows(real, films / "a.mp4", window=0.5, step=0.125, topk=1))
    best = [scores.probabilities.max().item() for scores in together]
    assert [prediction.top_classes[0][1] for prediction in expected] == best


def test_segments_are_printed_and_written(
    run: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = [f"output={tmp_path / name}" for name in ("a.csv", "a.json", "a.eaf", "a.via.json")]
    page = tmp_path / "a.html"
    options = ["--segments", "--window", "1", "--smooth", "0"]
    command = ["predict", str(film), "--run", str(run), *options, *outputs, f"output={page}"]
    assert run_command(command) == 0
    # windows of 1 s begin every 0.25 s; those with 0.75 s or more of dark frames are dark
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"[\d.]+%", "…", line.removeprefix(str(film))) for line in lines] == [
        "  4.12–6.88 s  dark …",
        "  10.12–14.88 s  bright …",
    ]
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "start_seconds", "end_seconds", "label", "score"]
    assert [(row["start_seconds"], row["end_seconds"], row["label"]) for row in rows] == [
        ("4.125", "6.875", "dark"),
        ("10.125", "14.875", "bright"),
    ]
    (video,) = json.loads((tmp_path / "a.json").read_text())
    assert video["path"] == str(film) and video["duration_seconds"] == 20
    assert video["segments"][1]["start_seconds"] == 10.125 and video["segments"][1]["score"] > 0.9
    check_eaf(tmp_path / "a.eaf", film)
    check_via(tmp_path / "a.via.json")
    html = page.read_text()
    assert not re.search(r"<script|https?://|<link[^>]+href=\"(?!data:)", html)
    assert html.count('class="strip"') == 1 and "dark, 0:04.12–0:06.88" in html


def check_eaf(path: Path, film: Path) -> None:
    root = ElementTree.parse(path).getroot()
    assert [child.tag for child in root] == [
        *("HEADER", "TIME_ORDER", "TIER", "TIER", "LINGUISTIC_TYPE"),
    ]
    media = root.find("HEADER/MEDIA_DESCRIPTOR")
    assert media is not None and media.attrib == {
        "MEDIA_URL": film.as_uri(),
        "MIME_TYPE": "video/mp4",
        "RELATIVE_MEDIA_URL": "./film.mp4",
    }
    slots = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    assert list(slots.values()) == ["4125", "6875", "10125", "14875"]
    tiers = {tier.get("TIER_ID"): tier for tier in root.iter("TIER")}
    assert list(tiers) == ["dark", "bright"]
    (annotation,) = tiers["bright"].iter("ALIGNABLE_ANNOTATION")
    assert annotation.attrib == {
        "ANNOTATION_ID": "a2",
        "TIME_SLOT_REF1": "ts3",
        "TIME_SLOT_REF2": "ts4",
    }
    kinds = [kind.get("LINGUISTIC_TYPE_ID") for kind in root.iter("LINGUISTIC_TYPE")]
    assert kinds == [tiers["dark"].get("LINGUISTIC_TYPE_REF")]


def check_via(path: Path) -> None:
    project = json.loads(path.read_text())
    assert set(project) == {"project", "config", "attribute", "file", "metadata", "view"}
    assert project["file"]["1"] == {
        "fid": "1",
        "fname": "film.mp4",
        "type": 4,
        "loc": 1,
        "src": "film.mp4",
    }
    assert project["view"] == {"1": {"fid_list": ["1"]}} and project["project"]["vid_list"] == ["1"]
    assert project["metadata"]["1_00000002"] == {
        "vid": "1",
        "flg": 0,
        "z": [10.125, 14.875],
        "xy": [],
        "av": {"1": "bright"},
    }
    attribute = project["attribute"]["1"]
    assert attribute["anchor_id"] == "FILE1_Z2_XY0" and attribute["options"]["dark"] == "dark"


def test_segments_from_python(run: Path, film: Path) -> None:
    dark, bright = hv.predict_segments(loaded(run), film, window=1, smooth=0)
    assert (dark.label, dark.start_seconds, dark.end_seconds) == ("dark", 4.125, 6.875)
    assert (bright.label, bright.start_seconds, bright.end_seconds) == ("bright", 10.125, 14.875)
    (run / "segment_thresholds.json").write_text('{"window": 1, "thresholds": {"dark": 1}}')
    chosen = hv.predict_segments(run, film)
    assert [segment.label for segment in chosen] == ["bright"]
    assert len(hv.predict_segments(run, film, threshold=0.5)) == 2


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("window", 0, "seconds, above 0"),
        ("window", float("nan"), "seconds, above 0"),
        ("step", -1, "seconds, above 0"),
        ("step", "1", "seconds, above 0"),
        ("smooth", -1, "seconds, 0 or more"),
        ("min_seconds", True, "seconds, 0 or more"),
        ("threshold", 2, "above 0 and at most 1"),
        ("threshold", 0, "above 0 and at most 1"),
    ],
)
def test_numbers_out_of_range_are_named_as_in_python(
    run: Path, film: Path, name: str, value: Any, rule: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{name}={value!r}: must be {rule}$"):
        hv.predict_segments(run, film, **{name: value})
    assert hv.predict_segments(loaded(run), film, window=np.float32(1), smooth=np.int64(0))


def test_a_window_is_needed_where_clips_have_no_fixed_length(run: Path, film: Path) -> None:
    sampled = override_run(loaded(run), ["clip.sampling=segments"])
    words = r"^window=None: clips of a run with clip.sampling=segments have no fixed length; give"
    with pytest.raises(ConfigError, match=words):
        hv.predict_segments(sampled, film)
    assert hv.predict_segments(sampled, film, window=1) is not None


def labelled_list(film: Path, folder: Path, lines: Sequence[str]) -> Path:
    """Write a list into a new folder, with a copy of the film."""
    folder = folder / "lists"
    folder.mkdir(exist_ok=True)
    shutil.copy(film, folder / "film.mp4")
    listing = folder / "list.csv"
    listing.write_text("".join(f"film.mp4 {line}\n" for line in lines))
    (folder / "labels.txt").write_text("bright\ndark\n")  # in another order than the run's
    return listing


def test_chosen_thresholds_are_used_from_then_on(
    run: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = labelled_list(film, tmp_path, ["1 4 7", "0 10 15"])
    command = ["predict", "--run", str(run), "--choose-thresholds", str(listing), "--window", "1"]
    assert run_command([*command, "--step", "0.5"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"threshold 0\.\d\d  F1 1\.000  dark\n", out)
    assert f"mean F1 1.000 on 1 video; wrote {run}/segment_thresholds.json" in out
    written = json.loads((run / "segment_thresholds.json").read_text())
    assert written["window"] == 1 and written["step"] == 0.5 and written["smooth"] is None
    assert set(written["thresholds"]) == {"dark", "bright"}
    assert written["chosen"]["f1"] == {"dark": 1.0, "bright": 1.0}
    assert run_command(["predict", str(film), "--run", str(run), "--segments"]) == 0
    chosen = capsys.readouterr().out.splitlines()
    assert len(chosen) == 2
    assert run_command(["predict", str(film), "--run", str(run), "--segments", "--step", "2"]) == 0
    assert capsys.readouterr().out.splitlines() != chosen
    high = ["--segments", "--threshold", "1", "--window", "clip", "--step", "2"]
    assert run_command(["predict", str(film), "--run", str(run), *high]) == 0
    assert capsys.readouterr().out == f"{film}  no segments\n"


def test_a_test_of_segments(
    run: Path, film: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # the bright segment is labelled exactly; the dark one from 4 to 5.2 s only: overlap 0.38
    listing = labelled_list(film, tmp_path, ["1 4 5.2", "0 10 15"])
    with listing.open("a") as file:
        file.write('missing.mp4 ""\n')
    keys = [f"data.test={listing}", "test.max_broken=0.5"]
    caplog.set_level("INFO")
    assert run_command(["test", "--run", str(run), "--segments", *keys]) == 0
    results = json.loads((run / "segments_list.json").read_text())
    assert results["overlaps"] == [0.3, 0.4, 0.5, 0.6, 0.7]
    assert results["mAP"] == [100, 50, 50, 50, 50] and results["mean_mAP"] == 60
    assert results["classes"] == [
        {
            "name": "dark",
            "labelled": 1,
            "found": 1,
            "average_precision": [100, 0, 0, 0, 0],
        },
        {
            "name": "bright",
            "labelled": 1,
            "found": 1,
            "average_precision": [100, 100, 100, 100, 100],
        },
    ]
    assert results["evaluated"] == 1 and results["of"] == 2
    assert "missing.mp4" in results["unreadable"][0]
    assert "mAP at overlap 0.5: 50.00" in caplog.text
    page = (run / "segments_list.html").read_text()
    assert "mAP 60.0 %" in page and "1 of 2 videos evaluated" in page
    assert '<b>labelled</b><span style="left:' in page and "AP@0.5" in page
    assert run_command(["test", "--run", str(run), "--segments", keys[0]]) == 3


def test_labels_without_times_and_beyond_the_end(
    run: Path, film: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listing = labelled_list(film, tmp_path, ["1"])
    assert run_command(["test", "--run", str(run), "--segments", f"data.test={listing}"]) == 0
    results = json.loads((run / "segments_list.json").read_text())
    assert results["mAP"] == [0] * 5 and results["classes"][0]["labelled"] == 1
    listing = labelled_list(film, tmp_path, ["1 4 7", "0 10 30"])
    assert run_command(["test", "--run", str(run), "--segments", f"data.test={listing}"]) == 0
    assert f"1 segment ends beyond the end of the video and is clipped; {listing}:2" in caplog.text


def test_lists_are_checked(run: Path, film: Path, tmp_path: Path) -> None:
    for lines, names, words in (
        (['""'], "dark\nbright\n", "has no labelled segments; write `path label start_seconds"),
        (["0 1 2"], "background\n", "has no labelled segments"),
        (
            ["0 900 901"],
            "dark\n",
            r"list.csv:1: segment 900 to 901 s lies outside .*, 0.00 to 20.00",
        ),
        (["0 1 2"], "jump\n", "names classes that the run was not trained on: 'jump'"),
    ):
        listing = labelled_list(film, tmp_path, lines)
        listing.with_name("labels.txt").write_text(names)
        with pytest.raises(ManifestError, match=words):
            run_command(["predict", "--run", str(run), "--choose-thresholds", str(listing)])
    listing.write_text('film.mp4 ""\nnowhere.mp4 0 1 2\n')
    listing.with_name("labels.txt").write_text("dark\n")
    with pytest.raises(ManifestError, match="none of its labelled segments lies in a video that"):
        run_command(["predict", "--run", str(run), "--choose-thresholds", str(listing)])
    listing.write_text("nowhere.mp4 0 1 2\n")
    listing.with_name("labels.txt").write_text("dark\n")
    command = ["predict", "--run", str(run), "--choose-thresholds", str(listing)]
    with pytest.raises(ManifestError, match="none of its 1 video can be read; see above"):
        run_command(command)
    words = r"see above; its paths start from data.root=.*, with data.root=null from its folder"
    with pytest.raises(ManifestError, match=words):
        run_command([*command, f"data.root={tmp_path}"])


def test_damaged_thresholds_are_one_line(run: Path, film: Path) -> None:
    path = run / "segment_thresholds.json"
    for content in ("[]", '{"windw": 1}', '{"keep": 2}', '{"thresholds": 3}', "{"):
        path.write_text(content)
        with pytest.raises(ConfigError, match=r"segment_thresholds.json: is damaged \("):
            run_command(["predict", str(film), "--run", str(run), "--segments"])


def test_unreadable_videos(run: Path, film: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"x")
    paths = [str(tmp_path / "bad.mp4"), str(film)]
    assert run_command(["predict", *paths, "--run", str(run), "--segments"]) == 3
    assert run_command(["predict", paths[0], "--run", str(run), "--segments"]) == 2
    with pytest.raises(ConfigError, match="an ELAN file is about one video, and there are 2; give"):
        run_command(["predict", *paths, "--run", str(run), "--segments", "output=a.eaf"])


class LongVideo:
    """A grey video of two hours at 8 fps that counts the frames in memory."""

    fps = 8.0
    times = tuple(number / 8 for number in range(2 * 3600 * 8))

    def __init__(self) -> None:
        self.held, self.most = 0, 0

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        frames = np.full((len(indices), 8, 8, 3), 128, np.uint8)
        self.held += len(indices)
        self.most = max(self.most, self.held)
        weakref.finalize(frames, self._release, len(indices))
        return frames

    def _release(self, count: int) -> None:
        self.held -= count

    @property
    def info(self) -> LongVideo:
        return self

    width = height = 8


def test_a_video_of_two_hours_is_scored_in_bounded_memory(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = LongVideo()

    def in_process(function: object, items: object, **options: object) -> Iterator[object]:
        return map_videos(function, items, **{**options, "workers": 0})  # type: ignore[arg-type]

    monkeypatch.setattr(sliding_window, "open_video", lambda *_: video)
    monkeypatch.setattr(sliding_window, "map_videos", in_process)
    scored = score_video(loaded(run), "film.mp4", SegmentSettings(window=60, step=30))
    gc.collect()
    assert len(scored.curve.centres) == 239 and scored.curve.end_seconds == 7200
    # 8 windows of 16 frames at once, of 3,824 in all
    assert video.held == 0 and video.most <= 2 * 8 * 16


@pytest.mark.slow
def test_training_on_segments_with_background(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = labelled_list(film, tmp_path, ["1 4 7", "0 10 15"])
    monkeypatch.chdir(tmp_path)
    keys = [f"data.train={listing}", f"data.val={listing}", "data.workers=0", "out_dir=run"]
    short = ["train.epochs=1", "optim.warmup_epochs=0", "train.batch_size=2"]
    train = ["train", "--cfg", "motion_hiera_micro", *keys, *short]
    assert run_command([*train, "data.background=1"]) == 0
    meta = json.loads((tmp_path / "run/checkpoints/last/meta.json").read_text())
    assert meta["class_names"] == ["bright", "dark", "background"]
    assert meta["lists"]["train"]["videos"] == 4 and meta["lists"]["val"]["videos"] == 3
    with pytest.raises(ConfigError, match=r"data.background=2: goes with train.task=classify or"):
        pretrain = ["train", "--cfg", "motion_hiera_micro_mae", *keys, *short]
        run_command([*pretrain, "out_dir=mae", "data.background=2"])
    with pytest.raises(ConfigError, match=r"data.background=-1\.0: must be 0 or more, and finite"):
        run_command([*train, "data.background=-1"])
