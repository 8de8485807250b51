"""Programs compute what the model computes, at any batch size; one that does not is rejected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hiera_video.errors import ExportError
from hiera_video.export import program as programs
from hiera_video.models.hiera import Hiera


@pytest.fixture(scope="module")
def model(random_model: Callable[[], Hiera]) -> Hiera:
    model = random_model()
    return model.eval()


@pytest.fixture(scope="module")
def written(model: Hiera, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write `m.pt2`, and `m.onnx` with its weights in a second file, as for a large model."""
    folder = tmp_path_factory.mktemp("programs")
    graph = programs.capture(model, "logits")
    programs.write_pt2(graph, folder / "m.pt2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "MAX_ONNX_BYTES", 1000)
        assert programs.write_onnx(graph, folder / "m.onnx", "logits") >= 18
    return folder


@pytest.mark.parametrize("name", ["m.pt2", "m.onnx"])
def test_logits_equal_the_models_at_any_batch_size(written: Path, model: Hiera, name: str) -> None:
    run, generator = programs.load_program(written / name), torch.Generator().manual_seed(1)
    for batch in (1, 2, 5):
        clips = torch.randn(batch, 3, 16, 32, 32, generator=generator)
        with torch.no_grad():
            wanted = model(clips)
        assert wanted.abs().max() > 0.1
        assert (run(clips) - wanted).abs().max() <= programs.TOLERANCE[Path(name).suffix]


def test_files_contain_little_but_the_weights(written: Path, model: Hiera) -> None:
    weights = sum(p.numel() * 4 for p in model.parameters())
    assert weights <= (written / "m.pt2").stat().st_size < 1.2 * weights
    assert weights <= size(written / "m.onnx") < 1.2 * weights
    assert (written / "m.onnx").stat().st_size < 0.2 * weights


def size(program: Path) -> int:
    return program.stat().st_size + program.with_name(program.name + ".data").stat().st_size


def test_int8_is_smaller_and_close(written: Path, model: Hiera, tmp_path: Path) -> None:
    programs.write_int8(written / "m.onnx", tmp_path / "q.onnx")
    assert size(tmp_path / "q.onnx") < 0.4 * size(written / "m.onnx")
    clips = torch.randn(2, 3, 16, 32, 32)
    small, exact = (
        programs.load_program(tmp_path / "q.onnx")(clips),
        programs.load_program(written / "m.onnx")(clips),
    )
    gap = float((small - exact).abs().max())
    assert 1e-4 < gap < 0.2 * float(exact.abs().max())


def test_differences_above_the_tolerance_are_rejected(model: Hiera) -> None:
    def shifted(clips: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model(clips) + 2e-4 * (len(clips) == 3)

    found = programs.compare_outputs(model, "logits", shifted, relative=False)
    assert [item.batch for item in found] == [1, 3]
    np.testing.assert_allclose([item.relative for item in found], [0, 2e-4], atol=1e-5)
    programs.check_differences(found, 1e-3)
    with pytest.raises(
        ExportError,
        match=r"differs from the model's by 0.0002 at batch size 3, more than 0.0001; nothing",
    ):
        programs.check_differences(found, 1e-4)
    nan = programs.OutputDifference(batch=1, largest=float("nan"), scale=1.0)
    with pytest.raises(ExportError, match=r"by nan at batch size 1, more than 0.0001"):
        programs.check_differences([nan], 1e-4)
    with pytest.raises(
        ExportError, match=r"the program's output is \[1, 2\], the model's \[1, 3\]; this is a bug"
    ):
        programs.compare_outputs(
            model, "logits", lambda clips: torch.zeros(len(clips), 2), relative=False
        )


def test_relative_differences(model: Hiera) -> None:
    def doubled(clips: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model.forward_features(clips) * 2

    assert [
        item.relative
        for item in programs.compare_outputs(model, "features", doubled, relative=True)
    ] == [1.0, 1.0]


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_unreadable_program(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x{suffix}").write_text(json.dumps({}))
    with pytest.raises(ExportError, match=rf"x\{suffix}: cannot be read \(.*\); export it again"):
        programs.load_program(tmp_path / f"x{suffix}")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "versions", lambda: {"torch": "2", "onnx": "1"})
    with pytest.raises(
        ExportError, match=r"ONNX needs onnxruntime; pip install 'hiera-video\[export\]'"
    ):
        programs.load_program(tmp_path / "x.onnx")
