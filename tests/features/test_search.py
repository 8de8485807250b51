"""Search finds the nearest windows, whichever engine looks; examples come from the store, a file or a list."""

from __future__ import annotations

import csv
import io
import json
import math
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

import hiera_video as hv
from hiera_video.errors import ConfigError, FeatureError
from hiera_video.features.search import EXTRA_CANDIDATES, SearchIndex, unit_vectors
from hiera_video.features.shard_files import INDEX, ShardFiles
from hiera_video.models.factory import create_model
from hiera_video.models.weights.save import save_pretrained
from hiera_video.video.encode import write_video
from hiera_video.video.options import FrameFolder
from hiera_video.workflows.search import (
    as_csv,
    as_json,
    config_of_store,
    decoder_of_store,
    find_examples,
    read_names,
    search,
    sheet,
    stored_example,
    write,
)

ROOT = Path(__file__).parents[2]


def made_up(folder: Path, videos: list[torch.Tensor]) -> hv.FeatureStore:
    """A store of windows with the given features, two seconds each."""
    files, entries = ShardFiles(folder), list[dict[str, Any]]()
    shape = list(videos[0].shape[1:])
    files.create(
        {
            "identity": {},
            "names": {"stage4": shape},
            "dtype": "fp32",
            "videos": len(videos),
            "shard_videos": 9,
        }
    )
    for row, windows in enumerate(videos):
        for clip in range(len(windows)):
            facts = {
                "path": f"/v/{row}.mp4",
                "row": row,
                "clip": clip,
                "shard": 0,
                "offset": len(entries),
            }
            times = {
                "start_seconds": 2.0 * clip,
                "end_seconds": 2.0 * clip + 2,
                "tail": False,
                "status": "ok",
            }
            entries.append({**dict.fromkeys(INDEX.names), **facts, **times})
    files.write(0, pa.Table.from_pylist(entries, schema=INDEX), {"stage4": torch.cat(videos)})
    return hv.FeatureStore(folder)


def at_angle(*degrees: float) -> torch.Tensor:
    return (
        torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees]) * 7
    )


@pytest.mark.parametrize("use_faiss", [False, True])
def test_cosine_best_window_and_order(tmp_path: Path, use_faiss: bool) -> None:
    store = made_up(tmp_path, [at_angle(0, 50), at_angle(10, 12), at_angle(90), at_angle(180)])
    index = SearchIndex(store, use_faiss=use_faiss)
    found = index.search(at_angle(0, 90), 4)
    assert [match.index for match in found] == [0, 4, 2, 3]  # 0°, 90°, 10° and 12°
    assert [match.window for match in found] == [0, 1, 0, 0]
    np.testing.assert_allclose(
        [match.similarity for match in found],
        [1, 1, math.cos(math.radians(10)), math.cos(math.radians(12))],
        atol=1e-6,
    )
    assert [match.index for match in index.search(at_angle(0), 3, exclude_rows=[0])] == [2, 3, 4]
    assert [match.index for match in index.search(at_angle(0), 9, each_video_once=True)] == [
        0,
        2,
        4,
        5,
    ]
    assert [
        match.index for match in index.search(at_angle(0), 2, exclude_rows=[1], each_video_once=True)
    ] == [0, 4]


def test_both_engines_find_the_same(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    videos = [torch.randn(5, 16, generator=generator) for _ in range(150)]
    videos[9:12] = [videos[8]] * 3  # equal windows come in the store's order
    store = made_up(tmp_path, videos)
    ours, theirs = SearchIndex(store, use_faiss=False), SearchIndex(store, use_faiss=True)
    truth = torch.nn.functional.normalize(store.matrix(), dim=1).double()
    for row in (0, 8, 149):
        example = store[row].features[:2]
        found = ours.search(example, 20)
        assert found == theirs.search(example, 20)
        wanted = (
            (truth @ truth[5 * row : 5 * row + 2].T)
            .amax(1)
            .sort(descending=True, stable=True)
            .indices[:20]
        )
        assert [match.index for match in found] == wanted.tolist()
        every = ours.search(
            example, 140, each_video_once=True
        )  # more than EXTRA_CANDIDATES allows for at the first try
        assert len(truth) > 140 + EXTRA_CANDIDATES and len({match.index // 5 for match in every}) == 140
        assert every == theirs.search(example, 140, each_video_once=True)


def test_a_product_in_parts_is_the_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made_up(tmp_path, [torch.randn(50, 8, generator=torch.Generator().manual_seed(1))])
    whole = SearchIndex(store, use_faiss=False).search(store[0].features[:1], 7)
    monkeypatch.setattr("hiera_video.features.search.ROWS_PER_PRODUCT", 7)
    monkeypatch.setattr("hiera_video.features.search.EXTRA_CANDIDATES", 2)
    assert SearchIndex(store, use_faiss=False).search(store[0].features[:1], 7) == whole


def test_maps_are_averaged() -> None:
    maps = torch.arange(24.0).view(1, 2, 2, 2, 3)
    mean = torch.tensor([[10.5, 11.5, 12.5]])
    assert torch.allclose(unit_vectors(maps), mean / mean.norm())


def test_an_empty_store_is_told(tmp_path: Path) -> None:
    ShardFiles(tmp_path).create(
        {"identity": {}, "names": {"stage4": [2]}, "dtype": "fp32", "videos": 1}
    )
    with pytest.raises(
        FeatureError, match="holds no window with features; look at its broken videos"
    ):
        SearchIndex(hv.FeatureStore(tmp_path))


def test_an_example_of_the_store_is_no_answer_to_itself(reference_store: Path, folder: Path) -> None:
    store = hv.FeatureStore(reference_store)
    rows = search(
        store, [stored_example(store, str(folder / "0.mp4")), stored_example(store, 3)], 3
    )
    assert [row["rank"] for row in rows] == [1, 2, 3] * 2
    assert {row["row"] for row in rows[:3]} & {0} == {row["row"] for row in rows[3:]} & {3} == set()
    assert [row["similarity"] for row in rows[:3]] == sorted(
        (row["similarity"] for row in rows[:3]), reverse=True
    )
    second = store[0].start_seconds[1]
    rows = search(store, [stored_example(store, 0)], 5, at=float(second) + 0.1)
    assert {row["example_seconds"][0] for row in rows} == {round(float(second), 3)}
    with pytest.raises(
        FeatureError, match=r"0.mp4: no window of it lies at second 60; they go from 0 to 3.3"
    ):
        search(store, [stored_example(store, 0)], 5, at=60)


def test_the_same_video_from_elsewhere_is_found_with_the_same_features(
    reference_store: Path, folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "5.mp4", tmp_path / "copy.mp4")
    store = hv.FeatureStore(reference_store)
    listed = [
        str(folder / "2.mp4"),
        str(tmp_path / "copy.mp4"),
    ]  # one of the store's, one from elsewhere
    inside, outside = find_examples(store, stored=[], videos=[], listed=listed, run=None)
    assert inside.is_stored and inside.video.row == 2 and not outside.is_stored
    assert torch.equal(outside.video.features, store[5].features)
    (best,) = search(store, [outside], 1)
    assert best["row"] == 5 and best["similarity"] == 1.0


def test_the_store_knows_how_it_was_made(reference_store: Path, make_config: Any, weights: Path) -> None:
    wanted, found = make_config(reference_store), config_of_store(hv.FeatureStore(reference_store))
    assert (found.clip, found.model.name) == (wanted.clip, wanted.model.name)
    assert found.model.pretrained == str(weights)
    for key in (
        "pooling",
        "window",
        "stride",
        "unit",
        "tail",
        "batch_size",
        "threads",
        "precision",
        "dtype",
    ):
        assert getattr(found.features, key) == getattr(wanted.features, key)


def test_other_weights_are_refused(reference_store: Path, folder: Path, tmp_path: Path) -> None:
    store = hv.FeatureStore(reference_store)
    other = save_pretrained(create_model("hiera_micro_16x32", num_classes=3), tmp_path / "other")
    with pytest.raises(
        FeatureError,
        match=r"other: holds other weights \(\w{12}…\) than the store was made with .* --run",
    ):
        find_examples(store, stored=[], videos=[str(folder / "0.mp4")], listed=[], run=str(other))
    del store.metadata["pretrained"]
    with pytest.raises(
        FeatureError,
        match="does not say where its weights came from; name the run or file with --run",
    ):
        config_of_store(store)


def test_examples_that_are_none_are_told(reference_store: Path, folder: Path, tmp_path: Path) -> None:
    store = hv.FeatureStore(reference_store)

    def found(**given: Any) -> object:
        return find_examples(
            store, **{"stored": [], "videos": [], "listed": [], "run": None, **given}
        )

    with pytest.raises(FeatureError, match="row 99: the manifest has rows 0 to 7"):
        found(stored=[99])
    with pytest.raises(FeatureError, match=r"nowhere.mp4 is not there"):
        found(stored=["nowhere.mp4"])
    with pytest.raises(
        FeatureError, match=r"4.mp4: has no features \(broken: .*\); choose another example"
    ):
        found(stored=[4])
    with pytest.raises(
        ConfigError,
        match=r"gone.mp4: no such file; an example is a video, or a path or row of the store",
    ):
        found(videos=["gone.mp4"])
    with pytest.raises(
        ConfigError, match=r"gone.mp4: is neither a path of the store nor a file; correct the list"
    ):
        found(listed=["gone.mp4"])
    with pytest.raises(FeatureError, match=r"4.mp4: has no features \(broken"):
        found(videos=[str(folder / "4.mp4")])


def test_a_list_names_an_example_a_line(tmp_path: Path) -> None:
    listed = tmp_path / "examples.txt"
    listed.write_text("# of waving\n a b.mp4 \n\nc.mp4\n")
    assert read_names(str(listed)) == ["a b.mp4", "c.mp4"]
    listed.write_text("# none\n")
    with pytest.raises(
        ConfigError, match=r"--list .*examples.txt: names no example; write a path a line"
    ):
        read_names(str(listed))
    with pytest.raises(
        ConfigError, match=r"--list gone.txt: no such file; it names an example a line"
    ):
        read_names("gone.txt")


def test_results_as_text_and_picture(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", np.full((24, 32, 32, 3), 80, np.uint8), fps=12)
    row = {
        "rank": 1,
        "row": 4,
        "start_seconds": 0.0,
        "end_seconds": 1.0,
        "similarity": 0.5,
        "example_seconds": [1.0, 2.0],
    }
    rows = [{"example": str(tmp_path / "a.mp4"), "path": str(tmp_path / "b.mp4"), **row}]
    (entry,) = csv.DictReader(io.StringIO(as_csv(rows)))
    assert (
        entry["similarity"] == "0.5"
        and entry["example_seconds"] == "1.0-2.0"
        and entry["row"] == "4"
    )
    assert json.loads(as_json(rows)) == rows
    late = {
        **rows[0],
        "rank": 2,
        "start_seconds": 7.0,
        "end_seconds": 8.0,
    }  # the file has changed since
    gone = {**rows[0], "rank": 3, "path": str(tmp_path / "gone.mp4")}
    write(str(tmp_path / "s.png"), sheet([*rows, late, gone]))
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(
        ConfigError,
        match=r"no/s.png: cannot be written \(No such file or directory\); name another",
    ):
        write(str(tmp_path / "no" / "s.png"), b"")


def test_pictures_of_folders_of_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for number in range(24):
        Image.fromarray(np.full((32, 32, 3), 80, np.uint8)).save(folder / f"img_{number:05d}.png")
    store = made_up(tmp_path / "store", [at_angle(0)])
    store.metadata["identity"] |= {"data.decoder": "frames", "data.frame_fps": 12.0}
    seconds = {"start_seconds": 0.0, "end_seconds": 1.0, "example_seconds": [1.0, 2.0]}
    row = {
        "example": str(folder),
        "path": str(folder),
        "rank": 1,
        "row": 0,
        "similarity": 1.0,
        **seconds,
    }
    assert decoder_of_store(store) == FrameFolder(fps=12.0)
    picture = np.asarray(Image.open(io.BytesIO(sheet([row], decoder_of_store(store)))))
    assert (picture == 80).all(axis=2).any() and not caplog.messages


def test_the_tool_writes_what_it_finds(
    reference_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {kind: str(tmp_path / f"found.{kind}") for kind in ("csv", "json", "png")}
    options = ["--csv", names["csv"], "--json", names["json"], "--sheet", names["png"]]
    arguments = ["--store", str(reference_store), "--row", "0", "--row", "2", "--topk", "2", *options]
    monkeypatch.setattr("sys.argv", ["search.py", *arguments])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(ROOT / "tools" / "search.py"), run_name="__main__")
    rows = json.loads(Path(names["json"]).read_text())
    said = capsys.readouterr().out.splitlines()
    assert len(rows) == len(said) == len(Path(names["csv"]).read_text().splitlines()) - 1 == 4
    assert rows[0]["path"] in said[0] and Path(names["png"]).stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no example: give --video, --path, --row or --list"),
        (["--row", "0", "--topk", "0"], "--topk 0: must be 1 or more"),
        (["--list", "gone.txt"], "--list gone.txt: no such file"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str) -> None:
    command = [sys.executable, "tools/search.py", "--store", "x", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
