"""Sphinx configuration: `make docs` builds the pages offline, with warnings as errors."""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from hiera_video import __version__

project = "hiera-video"
author = "the hiera-video authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4  # links like data.md#lists
smartquotes = False  # options begin with two hyphens
default_role = "code"  # docstrings write names in single backticks

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "hiera-video"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = html_show_sourcelink = False
html_theme_options = {
    "source_repository": "https://github.com/hiera-video/hiera-video/",
    "source_branch": "main",
    "source_directory": "docs/",
}

logging.getLogger("torch").setLevel(logging.ERROR)

ROOT = Path(__file__).parents[1]
FILES = "https://github.com/hiera-video/hiera-video/blob/main/"
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Files of the repository's root that are pages of this site."""


def link_repository(app: Sphinx, docname: str, content: list[str]) -> None:
    """Let links that leave docs/ point to the repository; on its website they work as they are."""
    folder = (ROOT / "docs" / docname).parent

    def absolute(match: re.Match[str]) -> str:
        target = os.path.relpath(folder / match[1], ROOT)
        return match[0] if target.startswith("docs") else f"]({FILES}{target})"

    content[0] = re.sub(r"\]\((\.\./[^)\s]+)\)", absolute, content[0])


def link_root_pages(app: Sphinx, path: Path, docname: str, content: list[str]) -> None:
    """Let links between files of the repository's root point to their pages."""
    for name, page in PAGES.items():
        content[0] = content[0].replace(f"]({name})", f"]({page})")


def setup(app: Sphinx) -> None:
    """Connect the hooks."""
    app.connect("source-read", link_repository)
    app.connect("include-read", link_root_pages)
