"""Run the python and bash blocks of the documentation, page by page, in a folder made for them.

A block is run unless the line before it is `<!-- not run: reason -->`. Trainings are shortened.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hiera_video.cli.main import COMMANDS, command_module, run_command
from hiera_video.config.load import load_config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("docs/*/*.md"))]
BLOCK = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>[^\n]+) -->\n)?"
    r"^ *```(?P<language>[^\n]*)\n(?P<code>.*?)^ *```$",
    flags=re.DOTALL | re.MULTILINE,
)
SHORTER = {
    "train": ("train.epochs=1", "optim.warmup_epochs=0", "data.workers=0", "probe.folds=2"),
    "check-data": ("--workers", "0"),
}
"""Arguments that the test appends to a command."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block of a page."""

    language: str
    code: str
    reason: str | None
    """Why the block is not run; None if it is."""


def blocks(page: Path) -> list[Block]:
    found = []
    for match in BLOCK.finditer(page.read_text()):
        code = "\n".join(line.removeprefix("   ") for line in match["code"].splitlines())
        indented = match[0].lstrip("\n").startswith("   ")
        text = code + "\n" if indented else match["code"]
        found.append(Block(language=match["language"], code=text, reason=match["reason"]))
    return found


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(code: str) -> Iterator[list[str]]:
    """Yield the words of each line of a bash block."""
    for line in code.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def product_commands(code: str) -> Iterator[tuple[str, list[str]]]:
    """Yield command and arguments of the lines that start hiera-video, under torchrun or not."""
    for words in commands(code):
        if "hiera-video" in words[:1]:
            yield words[1], words[2:]
        elif "hiera_video" in words and words[0] in ("torchrun", "python"):
            after = words[words.index("hiera_video") + 1 :]
            yield after[0], after[1:]


RUN = [
    page
    for page in PAGES
    if any(block.reason is None and block.language in ("python", "bash") for block in blocks(page))
]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_fences_have_a_language(page: Path) -> None:
    for block in blocks(page):
        known = ("python", "bash", "text", "yaml", "json")
        assert block.language in known or block.language.startswith("{"), block.code[:80]
        assert block.reason is None or len(block.reason.split()) > 1, block.code[:80]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_exist(page: Path) -> None:
    for block in blocks(page):
        if block.language != "bash":
            continue
        for command, arguments in product_commands(block.code):
            check_command(command, arguments)


def check_command(command: str, arguments: list[str]) -> None:
    """Fail unless the command, its flags and its configuration keys exist."""
    if command.startswith("-"):
        return
    assert command in COMMANDS, command
    overrides = [word for word in arguments if re.match(r"[a-z]+\.[a-z_]+=", word)]
    configuration = "motion_hiera_micro"
    if "--cfg" in arguments:
        configuration = arguments[arguments.index("--cfg") + 1]
    if overrides:
        load_config(configuration, [word for word in overrides if "/" in word or "<" not in word])
    if command in ("benchmark", "prepare"):  # flags belong to the subject
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            run_command([command, arguments[0], "--help"])
        known = set(re.findall(r"--[\w-]+", shown.getvalue()))
    else:
        known = set(command_module(command).make_parser()._option_string_actions)
    flags = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    assert flags <= known, (command, flags - known)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name)
def test_blocks_run(
    page: Path, trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained_folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    scope: dict[str, Any] = {"__name__": "snippet"}
    printed, expected = io.StringIO(), []
    for block in blocks(page):
        if block.reason is not None:
            continue
        if block.language == "python":
            expected += re.findall(r"# ((?:torch\.Size|\[\(|\[').*)", block.code)
            with contextlib.redirect_stdout(printed):
                exec(compile(block.code, name(page), "exec"), scope)
        elif block.language == "bash":
            for words in commands(block.code):
                assert words[0] == "hiera-video", f"mark this block as not run: {words}"
                code = run_product(words[1:])
                assert code == 0, words
    lines = printed.getvalue().splitlines()
    assert [line for line in lines if line in expected] == expected


def run_product(words: list[str]) -> int:
    """Run a command in this process, shortened; return its exit code."""
    shorter = () if "--keys" in words else SHORTER.get(words[0], ())
    try:
        return run_command([*words, *shorter])
    except SystemExit as ended:  # --keys, --help
        return int(ended.code or 0)
