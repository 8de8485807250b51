"""`hiera-video configs`: the list, a configuration, a copy to edit."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiera_video.cli.configs import main, make_parser
from hiera_video.config.catalogue import list_configs
from hiera_video.errors import ConfigError


def test_the_list_has_the_published_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    published = (
        "\nk400_hiera_b\n"
        "    Hiera-B, Kinetics-400, fine-tuning from masked pre-training (paper 2306.00989, table "
        "11b).\n"
        "    published 84.0 top-1 with 5×3 views (paper, table 4); here: not run\n"
    )
    assert published in out
    assert [line for line in out.splitlines() if line[0] != " "] == list(list_configs())


def test_help_names_what_is_in_the_repository_alone() -> None:
    text = " ".join(make_parser().format_help().split())
    assert "are in the source repository, not in the installed package" in text


def test_a_configuration_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ssv2_hiera_l"]) == 0
    assert capsys.readouterr().out == list_configs()["ssv2_hiera_l"].read_text()


def test_a_copy_is_never_written_over_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--copy", "k400_hiera_b", "output=my.yaml"]) == 0
    assert capsys.readouterr().out == "my.yaml: edit it, then run hiera-video train --cfg my.yaml\n"
    assert Path("my.yaml").read_bytes() == list_configs()["k400_hiera_b"].read_bytes()
    assert main(["--copy", "k400_hiera_b"]) == 0 and Path("k400_hiera_b.yaml").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["k400_hiera"], "k400_hiera: no such configuration; did you mean k400_hiera_"),
        (["x"], "x: no such configuration; `hiera-video configs` lists them"),
        (["output=a.yaml"], "output=: needs --copy NAME"),
        (["--copy", "k400_hiera_b", "other"], "other: unknown argument; --copy takes one name"),
        (["--copy", "k400_hiera_b", "output=there.yaml"], "there.yaml: exists; choose another"),
        (["--copy", "k400_hiera_b", "output=no/a.yaml"], "no/a.yaml: there is no folder no;"),
    ],
)
def test_mistakes(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.yaml").touch()
    with pytest.raises(ConfigError) as error:
        main(arguments)
    assert words in str(error.value)
