"""Configurations by name, their notes, and copies that extend the package's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiera_video.config.catalogue import list_configs, read_notes
from hiera_video.config.load import flatten_config, load_config
from hiera_video.errors import ConfigError


def test_notes_at_the_top_of_a_configuration() -> None:
    found = read_notes(list_configs()["k400_hiera_h"].read_text())
    assert found.title == (
        "Hiera-H, Kinetics-400, fine-tuning from masked pre-training (paper 2306.00989, table 11b)."
    )
    assert found.notes["published"] == "87.8 top-1 with 5×3 views (paper, table 4); here: not run"
    assert found.notes["command"] == (
        "torchrun --nproc-per-node 8 -m hiera_video train --cfg k400_hiera_h "
        "model.pretrained=<weights> train.batch_size=auto"
    )


@pytest.mark.parametrize("name", list_configs())
def test_every_configuration_says_what_was_reached(name: str) -> None:
    found = read_notes(list_configs()[name].read_text())
    assert found.title.endswith(".") and {"published", "reached"} & set(found.notes)


def test_a_name_stands_for_the_package_s_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    by_name, by_file = load_config("k400_hiera_s"), load_config(list_configs()["k400_hiera_s"])
    assert flatten_config(by_name) == flatten_config(by_file)
    assert load_config("k400_hiera_s.yaml").out_dir == "runs/k400_hiera_s"
    Path("k400_hiera_s").write_text("model: {name: hiera_micro_16x32}\nout_dir: mine\n")
    assert load_config("k400_hiera_s").out_dir == "mine"  # a file of that name comes first


def test_a_copy_extends_the_package_s_base(tmp_path: Path) -> None:
    copy = tmp_path / "mine.yaml"
    copy.write_bytes(list_configs()["k400_hiera_s"].read_bytes())
    assert "_base_: k400_hiera_b.yaml" in copy.read_text()
    assert flatten_config(load_config(copy)) == flatten_config(load_config("k400_hiera_s"))
    (tmp_path / "k400_hiera_b.yaml").write_text("seed: 5\nclip: {num_frames: 16}\n")
    assert load_config(copy).seed == 5  # the one beside it comes first


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "configs/k400_hiera_b.yaml",
            "configs/k400_hiera_b.yaml: no such configuration file; --cfg k400_hiera_b is the one "
            "that comes with the package, `hiera-video configs --copy k400_hiera_b` writes it into "
            "a file to edit",
        ),
        ("k400_hiera_bb", "; did you mean k400_hiera_b, which comes with the package?"),
        ("nothing", "; `hiera-video configs` lists those that come with the package"),
    ],
)
def test_a_name_that_does_not_exist(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        load_config(name)
    assert str(error.value).endswith(words)
