"""Exports are checked files with a JSON file beside them; a failed check leaves nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hiera_video.config.load import load_config, save_config
from hiera_video.errors import ConfigError, ExportError
from hiera_video.export import program as programs
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.weights.save import save_pretrained
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.utils.resumable import exclusive
from hiera_video.video.encode import write_video
from hiera_video.workflows.export import export
from hiera_video.workflows.export_source import (
    ExportSource,
    check_exportable,
    export_source_from_run,
    export_source_from_weights,
)
from hiera_video.workflows.quantize import compare_int8, load_clips

ROOT = Path(__file__).parents[2]
NAMES = ["to the right", "to the left", "up"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, random_model: Callable[[], Hiera]) -> Path:
    """Write a run folder whose `data.val` is four videos of noise, one of them unreadable."""
    folder = tmp_path_factory.mktemp("run")
    generator = np.random.default_rng(0)
    for number in range(4):
        frames = generator.integers(0, 255, (20, 40, 48, 3), dtype=np.uint8)
        write_video(folder / f"{number}.mp4", frames, fps=12)
    (folder / "3.mp4").write_bytes(b"no video")
    (folder / "val.csv").write_text("".join(f"{number}.mp4 {number % 3}\n" for number in range(4)))
    options = [f"out_dir={folder}", f"data.val={folder / 'val.csv'}", "augment.mean=[0.4,0.5,0.6]"]
    save_config(
        load_config(ROOT / "configs/motion_hiera_micro.yaml", options), folder / "config.yaml"
    )
    model = random_model()
    meta = {"model": {"num_classes": 3}, "class_names": NAMES}
    CheckpointStore(folder / "checkpoints", keep=1).save(1, model.state_dict(), {}, meta, best=True)
    return folder


@pytest.fixture(scope="module")
def source(run: Path) -> ExportSource:
    return export_source_from_run(str(run), "best")


def test_overrides_of_the_runs_configuration(run: Path) -> None:
    overrides = ["data.val=other.csv", "clip.frame_stride=2"]
    check_exportable(str(run), None, overrides)
    source = export_source_from_run(str(run), "best", overrides)
    assert source.data.val == "other.csv"
    assert source.clip is not None and source.clip.frame_stride == 2
    with pytest.raises(ConfigError, match=r"must be equal; set clip.num_frames=16"):
        check_exportable(str(run), None, ["clip.num_frames=8"])


def test_run_in_int8_with_its_json(source: ExportSource, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "m.onnx"
    facts = export(source, target, int8=True)
    assert sorted(path.name for path in target.parent.iterdir()) == ["m.onnx", "m.onnx.json"]
    note = json.loads(target.with_name("m.onnx.json").read_text())
    assert note == facts
    assert (
        note["class_names"] == NAMES
        and note["mean"] == [0.4, 0.5, 0.6]
        and note["clip"]["num_frames"] == 16
    )
    assert note["input_size"] == {"frames": 16, "height": 32, "width": 32}
    assert note["pixels"]["short_side"] == 36 and "centre" in note["pixels"]["crop"]
    assert note["output"] == {"name": "logits", "shape": ["batch", 3]}
    assert note["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert (
        set(note["difference"]["by_batch"]) == {"1", "3"}
        and note["difference"]["tolerance"] == 1e-4
    )
    loss = note["int8"]
    assert (
        loss["clips"] == 3
        and 0 < loss["mean_difference"] <= loss["largest_difference"] < loss["largest_value"]
    )
    assert loss["bytes"] == target.stat().st_size < 0.4 * loss["float_bytes"]
    clips, labels = load_clips(source, str(source.data.val), 256)
    answers = programs.load_program(target)(clips)
    assert labels == [0, 1, 2]
    assert loss["int8_top1"] == pytest.approx(
        100 * float((answers.argmax(1) == torch.tensor(labels)).float().mean())
    )


def test_a_failed_check_leaves_nothing(
    source: ExportSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.pt2").write_text("previous")

    def shifted(path: Path) -> programs.Program:
        assert path.read_bytes() == b"new"
        assert path.parent.parent == tmp_path  # on the same disk, so that it can be moved
        return lambda clips: source.model(clips) + 1e-3

    monkeypatch.setattr(programs, "capture", lambda model, output: b"new")
    monkeypatch.setattr(programs, "write_pt2", lambda graph, path: path.write_bytes(graph))
    monkeypatch.setattr(programs, "load_program", shifted)
    with pytest.raises(
        ExportError,
        match=r"output differs from the model's by .* at batch size 1, more than 1e-05; nothing",
    ):
        export(source, tmp_path / "m.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]
    assert (tmp_path / "m.pt2").read_text() == "previous"


def test_a_full_disk_leaves_nothing(
    source: ExportSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_disk: Any
) -> None:
    """Issue I, 4.11: torch aborts the process if it writes a .pt2 file itself."""
    (tmp_path / "m.pt2").write_text("previous")
    monkeypatch.setattr(programs, "capture", lambda model, output: bytes(200_000))
    monkeypatch.setattr(torch.export, "save", lambda program, file: file.write(program))
    with (
        full_disk(100_000),
        pytest.raises(
            ExportError,
            match=r"m.pt2: cannot be written \(File too large\); choose another --output",
        ),
    ):
        export(source, tmp_path / "m.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]
    assert (tmp_path / "m.pt2").read_text() == "previous"


def test_features_of_pretrained_weights(tmp_path: Path) -> None:
    weights = str(save_pretrained(create_model("mae_hiera_micro_16x32"), tmp_path / "mae"))
    with pytest.raises(
        ConfigError,
        match=r"mae: has no classifier head; export its features: --output-of features",
    ):
        export_source_from_weights("hiera_micro_16x32", weights, "logits")
    facts = export(
        export_source_from_weights("hiera_micro_16x32", weights, "features"),
        tmp_path / "f.pt2",
        output="features",
    )
    assert (
        facts["output"] == {"name": "features", "shape": ["batch", 8, 2, 2, 256]}
        and facts["class_names"] is None
    )
    clips = torch.randn(1, 3, 16, 32, 32)
    with torch.no_grad():
        wanted = (
            create_model("hiera_micro_16x32", pretrained=weights).eval().forward_features(clips)
        )
    assert (programs.load_program(tmp_path / "f.pt2")(clips) - wanted).abs().max() <= 1e-5


def test_compare_int8() -> None:
    exact = torch.tensor([[1.0, 2.0], [4.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    rounded = exact + torch.tensor([[0.0, 0.5], [0.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    clips = torch.arange(4)
    facts = compare_int8(
        lambda x: exact[x], lambda x: rounded[x], clips, [1, 0, None, 0], output="logits"
    )
    assert facts == {
        "clips": 4,
        "largest_difference": 2.0,
        "mean_difference": pytest.approx(2.5 / 8),
        "largest_value": 4.0,
        "top1_agreement": 75.0,  # the second clip's class changes
        "float_top1": pytest.approx(200 / 3),
        "int8_top1": pytest.approx(100 / 3),
    }
    facts = compare_int8(
        lambda x: exact[x], lambda x: exact[x].flip(1), clips, [None] * 4, output="features"
    )
    assert facts["lowest_cosine"] == 0.0 and facts["mean_cosine"] == pytest.approx((0.8 + 0.96) / 4)


def test_load_clips(source: ExportSource, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"--int8: accuracy is measured on real clips; set --videos",
    ):
        load_clips(source, None, 4)
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(
        ExportError, match=r"none of its 1 video can be read; set --videos to another list"
    ):
        load_clips(source, str(tmp_path), 4)
    with pytest.raises(
        ConfigError, match="hiera_micro_16x32: is an image model; --int8 measures accuracy on clips"
    ):
        load_clips(replace(source, clip=None), "x", 4)
    clips, labels = load_clips(source, str(source.data.val), 2)  # the first and the third
    assert clips.shape == (2, 3, 16, 32, 32) and labels == [0, 2]


def test_masked_autoencoders_are_rejected_with_the_remedy() -> None:
    with pytest.raises(
        ConfigError,
        match=r"returns a loss; export its encoder: --model hiera_tiny_16x224 --pre",
    ):
        check_exportable(None, "mae_hiera_tiny_16x224")
    with pytest.raises(ConfigError, match="name='hiera_xl': unknown model; did you mean"):
        check_exportable(None, "hiera_xl")


def test_unwritable_folder_is_an_export_error(source: ExportSource, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ExportError, match=r"m.pt2: cannot be written \(.*\); choose another --output"
    ):
        export(source, tmp_path / "file" / "m.pt2")


def test_leftovers_of_a_killed_export_are_deleted(source: ExportSource, tmp_path: Path) -> None:
    target = tmp_path / "m.pt2"
    (tmp_path / ".m.pt2.unfinished").mkdir()
    (tmp_path / ".m.pt2.unfinished/m.pt2").write_bytes(b"half")
    (tmp_path / ".m.pt2.lock").touch()
    with (
        exclusive(tmp_path / ".m.pt2.lock", "busy"),
        pytest.raises(ConfigError, match=r"m.pt2: another command is writing it; wait for its end"),
    ):
        export(source, target)
    assert (tmp_path / ".m.pt2.unfinished/m.pt2").exists()  # not of this process
    export(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.pt2", "m.pt2.json"]
