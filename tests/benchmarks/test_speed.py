"""The speed benchmark at micro size, and its arithmetic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import speed
import speed_packages
import speed_page
import torch
from profile_model import kind_of, part_name
from speed_case import Case
from speed_implementations import build
from speed_measure import ratios, summarise
from speed_rows import add_row

ARGUMENTS = ["--size", "micro", "--resolution", "32", "--clock", "cpu", "--rounds", "1"]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_ratios_are_taken_within_a_round() -> None:
    assert ratios({"ours": [1.0, 2.0, 4.0], "theirs": [2.0, 6.0, 4.0]}, "ours") == {
        "theirs": {"median": 2.0, "least": 1.0, "most": 3.0}
    }
    assert summarise([3.0, 1.0, 2.0]) == {"median": 2.0, "least": 1.0, "most": 3.0}


@pytest.mark.parametrize("option", ["--batch", "--frames", "--resolution", "--rounds", "--threads"])
def test_counts_below_one_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        speed.main(["model", option, "0"])
    assert stopped.value.code == 2
    assert f"argument {option}: 0: must be 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["model", "mae"])
def test_a_case_is_measured_written_and_plotted(mode: str, tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    assert (
        speed.main(
            [mode, *ARGUMENTS, "--no-memory", "--only", "reference", "floor", "--out", str(out)]
        )
        == 0
    )
    (row,) = json.loads(out.read_text())["rows"]
    assert set(row["seconds"]) == {"ours", "reference", "floor"}
    assert row["differences"]["reference"] < 1e-5
    assert row["times_ours"]["floor"]["median"] > 0
    assert row["mfu"] > 0
    if mode == "model":
        (tmp_path / "performance.md").write_text("<!-- speed:begin -->\n<!-- speed:end -->\nend\n")
        speed_page.write(tmp_path, tmp_path, tmp_path)
        text = (tmp_path / "SPEED.md").read_text()
        assert "## Inference, micro 16x32, batch 1, float32, 1 thread, cpu time" in text
        assert "| hiera-transformer |" in text
        assert (tmp_path / "speed.png").stat().st_size > 5000


def test_summary_has_a_line_for_each_size() -> None:
    case = {"mode": "model", "size": "base", "dtype": "float32", "frames": 16, "resolution": 224}
    case |= {"images": False, "device": "cpu", "batch": 1}
    row = {
        "case": case,
        "macs": 101.7e9,
        "seconds": {"ours": {"median": 1.2641}},
        "times_ours": {"reference": {"median": 1.634}},
        "memory": {"ours": {"peak": 0.5}},
        "machine": {"cpu": "A CPU", "cores": 2},
        "date": "2026-01-02",
    }
    half = {**row, "case": {**case, "dtype": "bfloat16"}}
    _, _, *lines = speed_page.summary([half, row]).splitlines()
    assert lines == [
        "| base | 102 | 1.26 | 1.63 | 0.50 | – | – | – | – | – | – |",
        "",
        "Measured on A CPU, 2 cores, 2026-01-02.",
    ]


def test_another_result_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(speed.TOLERANCE, "float32", 0.0)
    monkeypatch.setattr(
        speed_packages, "_PACKAGES", {"reference": "hiera", "optim": "no_such_package"}
    )
    assert speed.main(["train", *ARGUMENTS, "--no-memory"]) == 1
    printed = capsys.readouterr().out
    assert "NOT THE SAME" in printed
    words = "no_such_package is not installed; pip install 'hiera-video[bench]' adds it"
    assert words in printed


def test_gradients_equal_the_authors() -> None:
    case = Case(mode="train", size="micro", resolution=32)
    ours = build("ours", case)
    reference = build("reference", case, ours.model.state_dict())
    for implementation in (ours, reference):
        implementation.step()
    theirs = reference.gradients()
    assert theirs.keys() == ours.gradients().keys()
    for name, gradient in ours.gradients().items():
        if "qkv.bias" not in name:  # the key's part has a gradient of rounding noise alone
            assert (gradient - theirs[name]).norm() < 1e-4 * theirs[name].norm(), name


def test_the_half_decoder_predicts_half_of_the_tokens() -> None:
    case = Case(mode="mae", size="micro", resolution=32)
    full = build("ours", case)
    half = build("ours_half", case, full.model.state_dict())
    predicted = [
        int(implementation.model(torch.zeros(1, 3, 16, 32, 32)).masked.sum())
        for implementation in (full, half)
    ]
    assert predicted[1] * 2 == predicted[0]


def test_a_row_replaces_an_older_one_of_its_case(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    for case, seconds in (({"size": "a"}, 1), ({"size": "b"}, 2), ({"size": "a"}, 3)):
        add_row("rows", {"case": case, "seconds": seconds}, path)
    rows = json.loads(path.read_text())["rows"]
    assert [(row["case"]["size"], row["seconds"]) for row in rows] == [("b", 2), ("a", 3)]
    assert rows[0]["versions"]["torch"] == torch.__version__.split("+")[0]


def test_operators_and_modules_by_kind_and_part() -> None:
    kinds = {
        "aten::addmm": "matrix products",
        "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
        "aten::copy_": "copies",
        "aten::gelu": "GELU",
        "aten::native_layer_norm": "norms",
        "aten::amax": "pooling",
        "aten::mkldnn_convolution": "patch convolution",
        "aten::add": "adds and products",
        "aten::native_layer_norm_backward": "norms",
    }
    assert {name: kind_of(name) for name in kinds} == kinds
    assert part_name("blocks.5.attn.qkv", [1, 4, 20, 23]) == "stage 3 attn.qkv"
    assert part_name("decoder_blocks.0.mlp.fc1", [1]) == "decoder mlp.fc1"
    assert part_name("norm", [1]) == "norm"
