"""Search with either engine; examples from the store, from files and from a list."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

import hiera_video as hv
from hiera_video.cli.search import main, warnings_only
from hiera_video.errors import ConfigError, FeatureError
from hiera_video.features.search import EXTRA_CANDIDATES, SearchIndex, unit_vectors
from hiera_video.features.shard_files import INDEX, ShardFiles
from hiera_video.models.factory import create_model
from hiera_video.models.weights.save import save_pretrained
from hiera_video.utils.text_files import escape_names
from hiera_video.video.encode import write_video
from hiera_video.video.options import FrameFolder
from hiera_video.workflows.search import (
    SearchResult,
    as_csv,
    as_json,
    config_of_store,
    decoder_of_store,
    find_examples,
    read_names,
    result_sheet,
    search,
    stored_example,
    write_output,
)


def make_store(folder: Path, videos: list[torch.Tensor]) -> hv.FeatureStore:
    """Write a store of windows of two seconds with the given features."""
    files, entries = ShardFiles(folder), list[dict[str, Any]]()
    names = {"stage4": list(videos[0].shape[1:])}
    metadata = {"names": names, "dtype": "fp32", "videos": len(videos), "shard_videos": 9}
    files.create({"identity": {}, **metadata})
    for row, windows in enumerate(videos):
        for clip in range(len(windows)):
            facts = {
                "path": f"/v/{row}.mp4",
                "row": row,
                "clip": clip,
                "start_seconds": 2.0 * clip,
                "end_seconds": 2.0 * clip + 2,
                "tail": False,
                "status": "ok",
                "shard": 0,
                "offset": len(entries),
            }
            entries.append({**dict.fromkeys(INDEX.names), **facts})
    files.write(0, pa.Table.from_pylist(entries, schema=INDEX), {"stage4": torch.cat(videos)})
    return hv.FeatureStore(folder)


def at_angle(*degrees: float) -> torch.Tensor:
    angles = [math.radians(angle) for angle in degrees]
    return 7 * torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])


@pytest.mark.parametrize("use_faiss", [False, True])
def test_matches_are_ordered_by_cosine(tmp_path: Path, use_faiss: bool) -> None:
    store = make_store(tmp_path, [at_angle(0, 50), at_angle(10, 12), at_angle(90), at_angle(180)])
    index = SearchIndex(store, use_faiss=use_faiss)
    found = index.search(at_angle(0, 90), 4)
    assert [match.index for match in found] == [0, 4, 2, 3]  # 0°, 90°, 10° and 12°
    assert [match.window for match in found] == [0, 1, 0, 0]
    cosines = [1, 1, math.cos(math.radians(10)), math.cos(math.radians(12))]
    np.testing.assert_allclose([match.similarity for match in found], cosines, atol=1e-6)

    def indices(topk: int, **options: Any) -> list[int]:
        return [match.index for match in index.search(at_angle(0), topk, **options)]

    assert indices(3, exclude_rows=[0]) == [2, 3, 4]
    assert indices(9, each_video_once=True) == [0, 2, 4, 5]
    assert indices(2, exclude_rows=[1], each_video_once=True) == [0, 4]


def test_both_engines_find_the_same(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    videos = [torch.randn(5, 16, generator=generator) for _ in range(150)]
    videos[9:12] = [videos[8]] * 3  # equal windows come in the order of the store
    store = make_store(tmp_path, videos)
    product, faiss = SearchIndex(store, use_faiss=False), SearchIndex(store, use_faiss=True)
    vectors = torch.nn.functional.normalize(store.matrix(), dim=1).double()
    for row in (0, 8, 149):
        example = store[row].features[:2]
        found = product.search(example, 20)
        assert found == faiss.search(example, 20)
        cosines = (vectors @ vectors[5 * row : 5 * row + 2].T).amax(1)
        expected = cosines.sort(descending=True, stable=True).indices[:20]
        assert [match.index for match in found] == expected.tolist()
        # needs more candidates than the first try has
        videos_once = product.search(example, 140, each_video_once=True)
        assert len(vectors) > 140 + EXTRA_CANDIDATES
        assert len({match.index // 5 for match in videos_once}) == 140
        assert videos_once == faiss.search(example, 140, each_video_once=True)


def test_a_product_in_parts_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, [torch.randn(50, 8, generator=torch.Generator().manual_seed(1))])
    whole = SearchIndex(store, use_faiss=False).search(store[0].features[:1], 7)
    monkeypatch.setattr("hiera_video.features.search.ROWS_PER_PRODUCT", 7)
    monkeypatch.setattr("hiera_video.features.search.EXTRA_CANDIDATES", 2)
    assert SearchIndex(store, use_faiss=False).search(store[0].features[:1], 7) == whole


def test_maps_are_averaged() -> None:
    maps = torch.arange(24.0).view(1, 2, 2, 2, 3)
    mean = torch.tensor([[10.5, 11.5, 12.5]])
    assert torch.allclose(unit_vectors(maps), mean / mean.norm())


def test_an_empty_store_is_refused(tmp_path: Path) -> None:
    metadata = {"identity": {}, "names": {"stage4": [2]}, "dtype": "fp32", "videos": 1}
    ShardFiles(tmp_path).create(metadata)
    with pytest.raises(
        FeatureError, match="has no windows with features; find its unreadable videos with"
    ):
        SearchIndex(hv.FeatureStore(tmp_path))


def test_windows_of_a_stored_example_are_left_out(reference_store: Path, folder: Path) -> None:
    store = hv.FeatureStore(reference_store)
    examples = [stored_example(store, str(folder / "0.mp4")), stored_example(store, 3)]
    results = search(store, examples, 3)
    assert [result.rank for result in results] == [1, 2, 3] * 2
    assert 0 not in {result.row for result in results[:3]}
    assert 3 not in {result.row for result in results[3:]}
    similarities = [result.similarity for result in results[:3]]
    assert similarities == sorted(similarities, reverse=True)


def test_one_window_of_the_example_is_chosen_by_its_time(reference_store: Path) -> None:
    store = hv.FeatureStore(reference_store)
    example, second = stored_example(store, 0), float(store[0].start_seconds[1])
    results = search(store, [example], 5, at=second + 0.1)
    assert {result.example_seconds[0] for result in results} == {round(second, 3)}
    with pytest.raises(
        FeatureError, match=r"0.mp4: has no window at 60 s; its windows cover 0 to 3.3"
    ):
        search(store, [example], 5, at=60)


def test_a_copy_of_a_stored_video_has_the_same_features(
    reference_store: Path, folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "5.mp4", tmp_path / "copy.mp4")
    store = hv.FeatureStore(reference_store)
    listed = [str(folder / "2.mp4"), str(tmp_path / "copy.mp4")]
    stored, new = find_examples(store, stored=[], videos=[], listed=listed, run=None)
    assert stored.is_stored and stored.video.row == 2 and not new.is_stored
    assert torch.equal(new.video.features, store[5].features)
    (best,) = search(store, [new], 1)
    assert best.row == 5 and best.similarity == 1.0


def test_the_config_of_a_store_is_the_one_it_was_extracted_with(
    reference_store: Path, make_config: Any, weights: Path
) -> None:
    expected = make_config(reference_store)
    found = config_of_store(hv.FeatureStore(reference_store))
    assert (found.clip, found.model.name) == (expected.clip, expected.model.name)
    assert found.model.pretrained == str(weights)
    keys = "pooling window stride unit tail batch_size threads precision dtype"
    for key in keys.split():
        assert getattr(found.features, key) == getattr(expected.features, key)


def test_other_weights_are_refused(reference_store: Path, folder: Path, tmp_path: Path) -> None:
    store = hv.FeatureStore(reference_store)
    other = save_pretrained(create_model("hiera_micro_16x32", num_classes=3), tmp_path / "other")
    with pytest.raises(
        FeatureError, match=r"other: has other weights \(\w{12}…\) than the store .* --run"
    ):
        find_examples(store, stored=[], videos=[str(folder / "0.mp4")], listed=[], run=str(other))
    del store.metadata["pretrained"]
    with pytest.raises(FeatureError, match="does not record where its weights are; give the run"):
        config_of_store(store)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"stored": [99]}, FeatureError, "row 99: the manifest has rows 0 to 7"),
        ({"stored": ["nowhere.mp4"]}, FeatureError, r"nowhere.mp4 is not in the store"),
        (
            {"stored": [4]},
            FeatureError,
            r"4.mp4: has no features \(broken: .*\); choose another example",
        ),
        ({"videos": ["gone.mp4"]}, ConfigError, r"gone.mp4: no such file; an example is a video"),
        ({"videos": ["4.mp4"]}, FeatureError, r"4.mp4: has no features \(broken"),
        (
            {"stored": [0], "overrides": ["data.decoder=decord"]},
            ConfigError,
            "^data.decoder=decord: the store's features depend on data.decoder; remove it$",
        ),
        (
            {"stored": [0], "overrides": ["data.workrs=1"]},
            ConfigError,
            "'data.workrs=1': unknown key 'data.workrs'; did you mean 'data.workers'",
        ),
        (
            {"listed": ["gone.mp4"]},
            ConfigError,
            r"gone.mp4: is neither in the store nor a file; correct the list",
        ),
    ],
)
def test_examples_without_features_are_refused(
    reference_store: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    store = hv.FeatureStore(reference_store)
    with pytest.raises(error, match=message):
        find_examples(store, **{"stored": [], "videos": [], "listed": [], "run": None, **given})


def test_a_list_has_one_example_per_line(tmp_path: Path) -> None:
    listed = tmp_path / "examples.txt"
    listed.write_text("# of waving\n a b.mp4 \n\nc.mp4\n")
    assert read_names(str(listed)) == ["a b.mp4", "c.mp4"]
    listed.write_text("# none\n")
    with pytest.raises(
        ConfigError, match=r"--list .*examples.txt: has no examples; write one path per line"
    ):
        read_names(str(listed))
    with pytest.raises(ConfigError, match=r"--list gone.txt: no such file; give a text file"):
        read_names("gone.txt")


def result(**changed: Any) -> SearchResult:
    facts = {
        "rank": 1,
        "row": 4,
        "start_seconds": 0.0,
        "end_seconds": 1.0,
        "similarity": 0.5,
        "example_seconds": (1.0, 2.0),
    }
    return SearchResult(**{**facts, **changed})


def test_results_as_csv_json_and_contact_sheet(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", np.full((24, 32, 32, 3), 80, np.uint8), fps=12)
    found = result(example=str(tmp_path / "a.mp4"), path=str(tmp_path / "b.mp4"))
    (entry,) = csv.DictReader(io.StringIO(as_csv([found])))
    assert (entry["similarity"], entry["row"]) == ("0.5", "4")
    assert entry["example_seconds"] == "1.0-2.0"
    assert json.loads(as_json([found])) == [{**asdict(found), "example_seconds": [1.0, 2.0]}]
    # beyond the end: the file has changed since the extraction
    late = replace(found, rank=2, start_seconds=7.0, end_seconds=8.0)
    gone = replace(found, rank=3, path=str(tmp_path / "gone.mp4"))
    write_output(str(tmp_path / "s.png"), result_sheet([found, late, gone]))
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(
        ConfigError, match=r"no/s.png: cannot be written \(No such file or directory\); choose an"
    ):
        write_output(str(tmp_path / "no" / "s.png"), b"")


def test_contact_sheet_of_names_that_are_not_utf8(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue I, 4.3: the index of a store escapes such names."""
    name = os.fsdecode(bytes(tmp_path) + b"/a\xff.mp4")
    write_video(tmp_path / "a.mp4", np.full((24, 32, 32, 3), 80, np.uint8), fps=12)
    (tmp_path / "a.mp4").rename(name)
    found = result(example=name, path=escape_names(name))
    assert result_sheet([found]).startswith(b"\x89PNG") and not caplog.messages


def test_contact_sheet_of_frame_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for number in range(24):
        Image.fromarray(np.full((32, 32, 3), 80, np.uint8)).save(folder / f"img_{number:05d}.png")
    store = make_store(tmp_path / "store", [at_angle(0)])
    store.metadata["identity"] |= {"data.decoder": "frames", "data.frame_fps": 12.0}
    assert decoder_of_store(store) == FrameFolder(fps=12.0)
    found = result(example=str(folder), path=str(folder))
    png = result_sheet([found], decoder_of_store(store))
    picture = np.asarray(Image.open(io.BytesIO(png)))
    assert (picture == 80).all(axis=2).any() and not caplog.messages


def test_the_command_prints_and_writes_results(
    reference_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {kind: str(tmp_path / f"found.{kind}") for kind in ("csv", "json", "png")}
    options = ["--csv", names["csv"], "--json", names["json"], "--sheet", names["png"]]
    arguments = ["--store", str(reference_store), "--row", "0", "--row", "2", "--topk", "2"]
    assert main([*arguments, *options]) == 0
    results = json.loads(Path(names["json"]).read_text())
    printed = capsys.readouterr().out.splitlines()
    assert len(results) == len(printed) == 4
    assert len(Path(names["csv"]).read_text().splitlines()) == 5
    assert results[0]["path"] in printed[0] and Path(names["png"]).stat().st_size > 1000


def test_the_answer_is_printed_alone(
    reference_store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue I, section 5: what a search logs of weights and extraction is no part of it."""
    caplog.set_level("INFO")
    names = [str(tmp_path / f"found.{kind}") for kind in ("csv", "json", "png")]
    outputs = [f"output={name}" for name in names]
    arguments = ["--store", str(reference_store), "--row", "0", *outputs]
    assert main(arguments) == 0
    assert all(Path(name).stat().st_size for name in names)
    with warnings_only("hiera_video"):
        logging.getLogger("hiera_video.models").info("loaded 60 tensors")
        logging.getLogger("hiera_video.models").warning("not on the contact sheet")
    assert caplog.messages == ["not on the contact sheet"]
    assert logging.getLogger("hiera_video").level == logging.NOTSET


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no example: give input=VIDEO, --path, --row or --list"),
        (["--row", "0", "--topk", "0"], "--topk 0: must be 1 or more"),
        (["--list", "gone.txt"], "--list gone.txt: no such file"),
    ],
)
def test_invalid_arguments_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        main(["--store", "x", *arguments])
