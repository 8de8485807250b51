"""Export for localisation toolkits: a reader that follows their rules gets the right seconds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import hiera_video as hv
from hiera_video.cli.write_localisation import main
from hiera_video.errors import FeatureError
from hiera_video.features.localisation import grid_of, read_annotations, write_localisation
from hiera_video.features.shard_files import INDEX, ShardFiles
from hiera_video.video.encode import write_video
from hiera_video.workflows.extract import read_input, resolve_config, run_extraction

ROOT = Path(__file__).parents[2]
EVENTS = {"slow": (12, 3.0, 4.0), "fast": (24, 2.0, 3.5)}
"""Frame rate, and start and end in seconds of the bright part of a video of six seconds."""


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two still pictures that are inverted for a while, an unreadable and a short video."""
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
def extract_events(eventful: Path, weights: Path) -> Callable[..., hv.FeatureStore]:
    def extract(output: Path, *overrides: str) -> hv.FeatureStore:
        common = (
            f"model.pretrained={weights}",
            f"features.input={eventful}",
            f"features.output={output}",
            "features.batch_size=8",
            "features.max_broken=0.5",
            "data.workers=0",
            "clip.short_videos=repeat",
        )
        path = ROOT / "configs/motion_hiera_micro.yaml"
        config = resolve_config(path, (*common, *overrides))
        assert run_extraction(config, read_input(config)) == 0
        return hv.FeatureStore(output)

    return extract


def read_event(folder: Path, name: str) -> tuple[float, float, float]:
    """Find the event in the exported files, with ActionFormer's rule for the time of a feature.

    Feature i is at (i * feat_stride + 0.5 * num_frames) / fps seconds.

    Returns:
        Centres of the first and last window that show the event, and half a window, in seconds.
    """
    layout = json.loads((folder / "layout.json").read_text())["actionformer"]
    entry = json.loads((folder / "annotations.json").read_text())["database"][name]
    features = np.load(folder / "features" / f"{name}{layout['file_ext']}")
    assert features.dtype == np.float32 and features.shape[1] == layout["input_dim"]
    fps = layout["default_fps"] if layout["default_fps"] is not None else entry["fps"]
    distance = np.linalg.norm(features - features[0], axis=1)
    (bright,) = np.nonzero(distance > 0.2 * distance.max())
    centres = (bright * layout["feat_stride"] + 0.5 * layout["num_frames"]) / fps
    return float(centres[0]), float(centres[-1]), 0.5 * layout["num_frames"] / fps


@pytest.mark.parametrize(
    ("overrides", "stride", "window", "clock"),
    [
        (("features.unit=frames", "features.window=16", "features.stride=4"), 4, 16, None),
        (("features.window=0.8", "features.stride=0.2"), 6, 24, 30.0),
    ],
)
def test_the_event_is_at_the_right_time(
    extract_events: Callable[..., hv.FeatureStore],
    tmp_path: Path,
    overrides: tuple[str, ...],
    stride: int,
    window: int,
    clock: float | None,
) -> None:
    store, out = extract_events(tmp_path / "features", *overrides), tmp_path / "tad"
    layout = write_localisation(store, out)
    toolkit = layout["actionformer"]
    assert (toolkit["feat_stride"], toolkit["num_frames"]) == (stride, window)
    assert toolkit["default_fps"] == clock
    grid = {"feature_stride": stride, "sample_stride": 1, "offset_frames": window // 2}
    assert layout["opentad"] == grid and layout["missing"] == 2
    assert (out / "missing_files.txt").read_text() == "broken\nshort\n"
    database = json.loads((out / "annotations.json").read_text())["database"]
    for name, (fps, start, end) in EVENTS.items():
        entry, rate = database[name], clock or fps
        assert entry["subset"] == "validation" and entry["annotations"] == []
        facts = (entry["duration"], entry["fps"], entry["frame"])
        assert facts == pytest.approx((6.0, rate, 6 * rate))
        first, last, half = read_event(out, name)
        step = stride / rate
        # from the first window that reaches the event to the last one
        assert start - half - 1e-6 <= first <= start - half + step + 1 / rate
        assert end + half - step - 1 / rate <= last <= end + half + 1e-6
        # OpenTAD maps seconds to the grid with frame / duration as fps
        position = first * entry["frame"] / entry["duration"] - grid["offset_frames"]
        expected = round((first - half) / step)
        assert position / stride == pytest.approx(expected, abs=1e-6)


def make_store(
    folder: Path, videos: list[list[tuple[float, float, bool]]], **identity: Any
) -> hv.FeatureStore:
    """Write a store with the given windows (start, end, tail); feature j of all is [j, 0]."""
    settings = {
        "features.unit": "seconds",
        "features.window": None,
        "features.stride": None,
        "features.tail": "keep",
        **identity,
    }
    files, entries = ShardFiles(folder), list[dict[str, Any]]()
    metadata = {"names": {"stage4": [2]}, "dtype": "fp16", "videos": len(videos)}
    files.create({"identity": settings, "shard_videos": 9, **metadata})
    for row, windows in enumerate(videos):
        for start, end, tail in windows:
            stride = identity.get("features.stride") or windows[0][1]
            facts = {
                "path": f"/v/{row}.mp4",
                "row": row,
                "clip": round(start / stride),
                "start_seconds": start,
                "end_seconds": end,
                "tail": tail,
                "status": "ok",
                "shard": 0,
                "offset": len(entries),
            }
            entries.append({**dict.fromkeys(INDEX.names), **facts})
    features = torch.stack([torch.arange(float(len(entries))), torch.zeros(len(entries))], 1).half()
    files.write(0, pa.Table.from_pylist(entries, schema=INDEX), {"stage4": features})
    return hv.FeatureStore(folder)


def test_gaps_are_filled_and_tails_left_out(tmp_path: Path) -> None:
    windows = [(0.0, 2.0, False), (2.0, 4.0, False), (8.0, 10.0, False), (10.0, 10.5, True)]
    layout = write_localisation(make_store(tmp_path / "in", [windows]), tmp_path / "out")
    features = np.load(tmp_path / "out" / "features" / "0.npy")
    assert features[:, 0].tolist() == [0, 1, 1, 1, 2]
    assert layout["windows_filled_from_the_one_before"] == 2
    annotations = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert annotations["database"]["0"]["duration"] == 10.5


def test_annotations_are_copied(tmp_path: Path) -> None:
    store = make_store(tmp_path / "in", [[(5.0, 7.0, False)], [(0.0, 2.0, False)]])
    segments = [{"label": "jump", "segment": [0.5, 1.5], "label_id": 0}]
    known = {"0": {"subset": "training", "duration": 1.9, "annotations": segments}, "9": {}}
    (tmp_path / "a.json").write_text(json.dumps({"database": known}))
    layout = write_localisation(
        store, tmp_path / "out", annotations=tmp_path / "a.json", subset="test"
    )
    database = json.loads((tmp_path / "out" / "annotations.json").read_text())["database"]
    times = {"duration": 2.0, "fps": 30.0, "frame": 60}
    assert database["0"] == {"subset": "training", "annotations": segments, **times}
    assert database["1"]["subset"] == "test" and set(database) == {"0", "1"}
    assert layout["not_annotated"] == ["1"]


@pytest.mark.parametrize(
    ("window", "stride", "expected"),
    [
        (64 / 30, 16 / 30, (16, 64, 30)),
        (0.64, 0.16, (4, 16, 25)),
        (2.5, 1.25, (30, 60, 24)),
        (0.346, 0.173, (173, 346, 1000)),
    ],
)
def test_windows_in_seconds_get_a_clock(
    tmp_path: Path, window: float, stride: float, expected: tuple[int, int, int]
) -> None:
    identity = {"features.window": window, "features.stride": stride}
    grid = grid_of(make_store(tmp_path, [[(0.0, window, False)]], **identity))
    assert (grid.stride, grid.window, grid.fps) == expected


@pytest.mark.parametrize(
    ("windows", "identity", "message"),
    [
        (
            [(0, 2, False)],
            {"features.tail": "drop"},
            "features.tail=drop: the lengths of the videos are unknown; extract",
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
            "0.mp4: windows of equally many frames last from 1.000 to 1.500 s .*; extract with",
        ),
        (
            [(0, 1, False)],
            {"features.window": 1 / 7, "features.stride": math.pi},
            "windows of 0.142857 s every 3.14159 s are not whole milliseconds; extract with",
        ),
    ],
)
def test_windows_without_a_grid_are_refused(
    tmp_path: Path, windows: Any, identity: dict[str, Any], message: str
) -> None:
    with pytest.raises(FeatureError, match=message):
        grid_of(make_store(tmp_path, [windows], **identity))


def test_windows_of_different_lengths_and_maps_are_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a", [[(0, 2, False)], [(0, 1, False)]])
    with pytest.raises(
        FeatureError, match=r"1.mp4: has windows of 1.000 s, others of 2.000 s; extract with feat"
    ):
        grid_of(store)
    store.metadata["names"]["stage4"] = [8, 2]
    store.metadata["identity"]["features.pooling"] = "temporal"
    with pytest.raises(
        FeatureError, match=r"features.pooling=temporal: the feature of a window must be one vector"
    ):
        grid_of(store)


def test_videos_with_the_same_name_are_refused(tmp_path: Path) -> None:
    files = ShardFiles(tmp_path)
    store = make_store(tmp_path, [[(0, 2, False)], [(0, 2, False)]])
    paths = pa.array(["/x/1.mp4", "/y/1.avi"])
    index = store.table().set_column(0, INDEX.field("path"), paths)
    files.write(0, index, {"stage4": torch.zeros(2, 2).half()})
    with pytest.raises(
        FeatureError, match="rows 0 and 1 are both named '1', and the toolkits identify videos by"
    ):
        write_localisation(hv.FeatureStore(tmp_path), tmp_path / "out")


def test_annotations_of_another_format_are_refused(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"videos": {}}', '{"database": {"a": 1}}', '{"database": []}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(
            FeatureError, match=r"a.json: is not in ActivityNet's format, \{\"database\": \{video: "
        ):
            read_annotations(tmp_path / "a.json")
    with pytest.raises(
        FeatureError, match=r"gone.json: cannot be read \(No such file or directory\)"
    ):
        read_annotations(tmp_path / "gone.json")


def test_the_command_prints_the_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(tmp_path / "in", [[(0.0, 2.0, False)]])
    assert main(["--store", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["actionformer"]["feat_stride"] == 60
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["annotations.json", "features", "layout.json", "missing_files.txt"]
