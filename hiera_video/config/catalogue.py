"""The configurations that come with the package, and the notes at their top."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

NOTE = re.compile(r"#   (\w+) +(.*)")


@dataclass(frozen=True, kw_only=True)
class ConfigNotes:
    """Comment at the top of a configuration."""

    title: str
    """One line: model, task, data set and source of the values."""
    notes: dict[str, str] = field(default_factory=dict)
    """`command`, `weights`, `data`, `then`, `published` and `reached`, where they are given."""


def list_configs() -> dict[str, Path]:
    """Return the file of each configuration that comes with the package, by name."""
    package = Path(__file__).resolve().parents[1]
    # in a checkout the folder lies beside the package, in a wheel inside it
    folders = (package / "configs", package.parent / "configs")
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {file.stem: file for file in sorted(folder.rglob("*.yaml"))}


def read_notes(text: str) -> ConfigNotes:
    """Return the notes of a configuration.

    >>> read_notes("# Hiera-B.\\n#   published  84.0\\n#              (paper)\\nmodel: {}").notes
    {'published': '84.0 (paper)'}
    """
    title, notes, name = [], dict[str, str](), None
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        found = NOTE.fullmatch(line)
        if found and not found[0].startswith("#    "):
            name = found[1]
            notes[name] = found[2]
        elif name is None:
            title.append(line.removeprefix("#").strip())
        else:
            notes[name] += f" {line.removeprefix('#').strip()}"
    return ConfigNotes(
        title=" ".join(title), notes={key: text.replace("\\ ", "") for key, text in notes.items()}
    )
