"""Features for action localisation: a reader that follows the toolkits' published rules gets the right seconds back."""

from __future__ import annotations

import json
import math
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import hiera_video as hv
from hiera_video.errors import FeatureError
from hiera_video.features.localisation import grid_of, read_annotations, write_localisation
from hiera_video.features.shard_files import INDEX, ShardFiles
from hiera_video.video.encode import write_video
from hiera_video.workflows.extract import resolve_config, read_input, run_extraction

ROOT = Path(__file__).parents[2]
EVENTS = {"slow": (12, 3.0, 4.0), "fast": (24, 2.0, 3.5)}
"""Frames a second, and when a video of six seconds turns bright."""


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A still picture that is inverted for a while, at two frame rates, beside a broken and a short video."""
    folder = tmp_path_factory.mktemp("eventful")
    still = np.random.default_rng(0).integers(0, 60, (36, 48, 3), dtype=np.uint8)
    for name, (fps, start, end) in EVENTS.items():
        frames = [
            255 - still if start <= number / fps < end else still for number in range(6 * fps)
        ]
        write_video(folder / f"{name}.mp4", iter(frames), fps=fps)
    write_video(folder / "short.mp4", iter([still] * 5), fps=12)
    (folder / "broken.mp4").write_bytes(b"no video at all")
    return folder


@pytest.fixture(scope="module")
def make(eventful: Path, weights: Path) -> Callable[..., hv.FeatureStore]:
    def extracted(output: Path, *overrides: str) -> hv.FeatureStore:
        common = (
            f"model.pretrained={weights}",
            f"features.input={eventful}",
            f"features.output={output}",
        )
        small = (
            "features.batch_size=8",
            "data.workers=0",
            "features.max_broken=0.5",
            "clip.short_videos=repeat",
        )
        config = resolve_config(ROOT / "configs/motion_hiera_micro.yaml", (*common, *small, *overrides))
        assert run_extraction(config, read_input(config)) == 0
        return hv.FeatureStore(output)

    return extracted


def event_by_their_rule(folder: Path, name: str) -> tuple[float, float, float]:
    """First and last centre of the windows that see the event, and half a window, all in seconds, from the files alone:
    ActionFormer's reader and its rule for feature i, (i * feat_stride + 0.5 * num_frames) / fps."""
    layout = json.loads((folder / "layout.json").read_text())["actionformer"]
    entry = json.loads((folder / "annotations.json").read_text())["database"][name]
    features = np.load(folder / "features" / f"{name}{layout['file_ext']}")
    assert features.dtype == np.float32 and features.shape[1] == layout["input_dim"]
    fps = layout["default_fps"] if layout["default_fps"] is not None else entry["fps"]
    distance = np.linalg.norm(features - features[0], axis=1)
    (seen,) = np.nonzero(distance > 0.2 * distance.max())
    centres = (seen * layout["feat_stride"] + 0.5 * layout["num_frames"]) / fps
    return float(centres[0]), float(centres[-1]), 0.5 * layout["num_frames"] / fps


@pytest.mark.parametrize(
    ("overrides", "layout", "rates"),
    [
        (
            ("features.unit=frames", "features.window=16", "features.stride=4"),
            (4, 16, None, 8),
            (12, 24),
        ),
        (("features.window=0.8", "features.stride=0.2"), (6, 24, 30.0, 12), (30, 30)),
    ],
)
def test_the_event_is_where_it_was(
    make: Any,
    tmp_path: Path,
    overrides: tuple[str, ...],
    layout: tuple[Any, ...],
    rates: tuple[float, float],
) -> None:
    store, out = make(tmp_path / "features", *overrides), tmp_path / "tad"
    found = write_localisation(store, out)
    assert (
        tuple(found["actionformer"][key] for key in ("feat_stride", "num_frames", "default_fps"))
        == layout[:3]
    )
    assert found["opentad"] == {
        "feature_stride": layout[0],
        "sample_stride": 1,
        "offset_frames": layout[3],
    }
    assert (out / "missing_files.txt").read_text() == "broken\nshort\n" and found["missing"] == 2
    database = json.loads((out / "annotations.json").read_text())["database"]
    for (name, (_, start, end)), rate in zip(EVENTS.items(), rates):
        entry = database[name]
        assert entry["subset"] == "validation" and entry["annotations"] == []
        assert (entry["duration"], entry["fps"], entry["frame"]) == pytest.approx(
            (6.0, rate, 6 * rate)
        )
        first, last, half = event_by_their_rule(out, name)
        stride = layout[0] / rate
        assert (
            start - half - 1e-6 <= first <= start - half + stride + 1 / rate
        )  # the first window that reaches it
        assert end + half - stride - 1 / rate <= last <= end + half + 1e-6
        # OpenTAD: fps is frame / duration; segments go to the grid and come back
        fps, grid = entry["frame"] / entry["duration"], found["opentad"]
        assert (first * fps - grid["offset_frames"]) / grid["feature_stride"] == pytest.approx(
            round((first - half) / stride), abs=1e-6
        )


def made_up(
    folder: Path, videos: list[list[tuple[float, float, bool]]], **identity: Any
) -> hv.FeatureStore:
    """A store with the given windows (start, end, tail) of each video; feature j of all is [j, 0]."""
    facts = {
        "features.unit": "seconds",
        "features.window": None,
        "features.stride": None,
        "features.tail": "keep",
    }
    files, entries = ShardFiles(folder), list[dict[str, Any]]()
    notes = {"names": {"stage4": [2]}, "dtype": "fp16", "videos": len(videos), "shard_videos": 9}
    files.create({"identity": {**facts, **identity}, **notes})
    for row, windows in enumerate(videos):
        for start, end, tail in windows:
            stride = identity.get("features.stride") or windows[0][1]
            known = {
                "path": f"/v/{row}.mp4",
                "row": row,
                "clip": round(start / stride),
                "shard": 0,
                "status": "ok",
            }
            times = {
                "start_seconds": start,
                "end_seconds": end,
                "tail": tail,
                "offset": len(entries),
            }
            entries.append({**dict.fromkeys(INDEX.names), **known, **times})
    features = torch.stack([torch.arange(float(len(entries))), torch.zeros(len(entries))], 1).half()
    files.write(0, pa.Table.from_pylist(entries, schema=INDEX), {"stage4": features})
    return hv.FeatureStore(folder)


def test_gaps_are_filled_and_tails_left_out(tmp_path: Path) -> None:
    windows = [(0.0, 2.0, False), (2.0, 4.0, False), (8.0, 10.0, False), (10.0, 10.5, True)]
    found = write_localisation(made_up(tmp_path / "in", [windows]), tmp_path / "out")
    assert np.load(tmp_path / "out" / "features" / "0.npy")[:, 0].tolist() == [0, 1, 1, 1, 2]
    assert found["windows_filled_from_the_one_before"] == 2
    assert (
        json.loads((tmp_path / "out" / "annotations.json").read_text())["database"]["0"]["duration"]
        == 10.5
    )


def test_segments_are_taken_over(tmp_path: Path) -> None:
    store = made_up(tmp_path / "in", [[(5.0, 7.0, False)], [(0.0, 2.0, False)]])
    segments = [{"label": "jump", "segment": [0.5, 1.5], "label_id": 0}]
    known = {
        "database": {"0": {"subset": "training", "duration": 1.9, "annotations": segments}, "9": {}}
    }
    (tmp_path / "a.json").write_text(json.dumps(known))
    found = write_localisation(
        store, tmp_path / "out", annotations=tmp_path / "a.json", subset="test"
    )
    database = json.loads((tmp_path / "out" / "annotations.json").read_text())["database"]
    assert database["0"] == {
        "subset": "training",
        "annotations": segments,
        "duration": 2.0,
        "fps": 30.0,
        "frame": 60,
    }
    assert (
        database["1"]["subset"] == "test"
        and found["not_annotated"] == ["1"]
        and set(database) == {"0", "1"}
    )


@pytest.mark.parametrize(
    ("window", "stride", "wanted"),
    [
        (64 / 30, 16 / 30, (16, 64, 30)),
        (0.64, 0.16, (4, 16, 25)),
        (2.5, 1.25, (30, 60, 24)),
        (0.346, 0.173, (173, 346, 1000)),
    ],
)
def test_seconds_find_a_clock(
    tmp_path: Path, window: float, stride: float, wanted: tuple[int, int, int]
) -> None:
    store = made_up(
        tmp_path, [[(0.0, window, False)]], **{"features.window": window, "features.stride": stride}
    )
    grid = grid_of(store)
    assert (grid.stride, grid.window, grid.fps) == wanted


@pytest.mark.parametrize(
    ("windows", "identity", "words"),
    [
        (
            [(0, 2, False)],
            {"features.tail": "drop"},
            "features.tail=drop: nobody knows how long the videos are; extract",
        ),
        (
            [(0, 1, True)],
            {},
            "no video is as long as a window; extract with a shorter features.window",
        ),
        (
            [(0, 2, False)],
            {"features.unit": "frames"},
            "features.window is not set; extract with a number of frames",
        ),
        (
            [(0, 1, False), (1, 2.5, False)],
            {"features.unit": "frames", "features.window": 16},
            "0.mp4: so many frames last from 1.000 to 1.500 s .*; extract with features.unit=seconds",
        ),
        (
            [(0, 1, False)],
            {"features.window": 1 / 7, "features.stride": math.pi},
            "windows of 0.142857 s every 3.14159 s are no whole milliseconds; extract with rounder",
        ),
    ],
)
def test_what_has_no_grid_is_told(
    tmp_path: Path, windows: Any, identity: dict[str, Any], words: str
) -> None:
    with pytest.raises(FeatureError, match=words):
        grid_of(made_up(tmp_path, [windows], **identity))


def test_what_cannot_stand_side_by_side_is_told(tmp_path: Path) -> None:
    store = made_up(tmp_path / "a", [[(0, 2, False)], [(0, 1, False)]])
    with pytest.raises(
        FeatureError,
        match=r"1.mp4: has windows of 1.000 s, others of 2.000 s; extract with features.win",
    ):
        grid_of(store)
    store.metadata["names"]["stage4"] = [8, 2]
    store.metadata["identity"]["features.pooling"] = "temporal"
    with pytest.raises(
        FeatureError,
        match=r"features.pooling=temporal: a window has to be one vector; extract with",
    ):
        grid_of(store)
    files = ShardFiles(tmp_path / "b")
    files.create({**store.metadata, "names": {"stage4": [2]}})
    entries = [
        {
            **dict.fromkeys(INDEX.names),
            "path": path,
            "row": row,
            "clip": 0,
            "tail": False,
            "shard": 0,
            "offset": row,
        }
        | {"start_seconds": 0.0, "end_seconds": 2.0, "status": "ok"}
        for row, path in enumerate(["/x/1.mp4", "/y/1.avi"])
    ]
    files.write(
        0, pa.Table.from_pylist(entries, schema=INDEX), {"stage4": torch.zeros(2, 2).half()}
    )
    with pytest.raises(
        FeatureError,
        match="rows 0 and 1 are both called '1', and a toolkit knows videos by name alone",
    ):
        write_localisation(hv.FeatureStore(tmp_path / "b"), tmp_path / "out")


def test_annotations_of_another_form_are_told(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"videos": {}}', '{"database": {"a": 1}}', '{"database": []}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(
            FeatureError, match=r"a.json: is not in ActivityNet's form, \{\"database\": \{video: "
        ):
            read_annotations(tmp_path / "a.json")
    with pytest.raises(
        FeatureError, match=r"gone.json: cannot be read \(No such file or directory\)"
    ):
        read_annotations(tmp_path / "gone.json")


def test_the_tool_says_what_a_configuration_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_up(tmp_path / "in", [[(0.0, 2.0, False)]])
    arguments = ["--store", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["write_localisation.py", *arguments])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(ROOT / "tools" / "write_localisation.py"), run_name="__main__")
    assert json.loads(capsys.readouterr().out)["actionformer"]["feat_stride"] == 60
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("annotations.json", "features", "layout.json", "missing_files.txt")
    ]
