"""The `hiera-video` command: commands by name, help without heavy imports, completion."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hiera_video import __version__
from hiera_video.cli import main as cli
from hiera_video.cli.main import COMMANDS, command_module, complete_parser, run_command

HEAVY = ("torch", "av", "torchvision", "matplotlib", "pyarrow")


def ended(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as error:
        run_command(arguments)
    return int(error.value.code or 0)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_a_parser(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: hiera-video {name} ")
    assert isinstance(command_module(name).make_parser(), argparse.ArgumentParser)


def test_help_of_every_command_imports_nothing_heavy() -> None:
    """One process parses all of them: what one imports, a command on its own imports too."""
    script = (
        "import sys\n"
        "from hiera_video.cli.main import COMMANDS, command_module, make_parser\n"
        "make_parser().format_help()\n"
        "for name in COMMANDS: command_module(name).make_parser().format_help()\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_list_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([]) == 0
    listed = re.findall(r"^  ([a-z][a-z-]*)  ", capsys.readouterr().out, flags=re.MULTILINE)
    assert listed == list(COMMANDS)
    assert ended(["--version"]) == 0
    assert capsys.readouterr().out == f"hiera-video {__version__}\n"


@pytest.mark.parametrize(
    ("name", "hint"), [("trian", "did you mean train?"), ("xyz", "choose from train, test, ")]
)
def test_an_unknown_command(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended([name]) == 2
    assert f"error: {name}: no such command; {hint}" in capsys.readouterr().err


def test_every_script_in_tools_is_a_command() -> None:
    names = {"train_net": "train", "test_net": "test", "extract_features": "extract"}
    for script in (Path(__file__).parents[2] / "tools").glob("*.py"):
        assert names.get(script.stem, script.stem).replace("_", "-") in COMMANDS


def test_completion_knows_the_commands_and_the_options_of_the_typed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    argcomplete = pytest.importorskip("argcomplete")

    def complete(line: str) -> list[str]:
        words = line.split(" ")
        finder = argcomplete.CompletionFinder(complete_parser(words[1:2]))
        return list(finder._get_completions([*words[:-1]], words[-1], "", None))

    assert complete("hiera-video tr") == ["train "]
    assert "--checkpoint " in complete("hiera-video export --ch")
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    monkeypatch.setenv("COMP_LINE", "hiera-video predict --")
    monkeypatch.setattr(argcomplete, "autocomplete", lambda parser: sys.exit(77))
    with pytest.raises(SystemExit) as error:
        cli.main()
    assert error.value.code == 77


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "hiera_video", "configs", "no_such"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (
        2,
        "error: no_such: no such configuration; `hiera-video configs` lists them\n",
    )
