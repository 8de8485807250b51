"""Build the documentation's website with warnings as errors, and check every link in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]


class Links(HTMLParser):
    """Collector of a page's links and of the places that links can lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.links += [found[key] or "" for key in ("href", "src") if key in found]
        self.anchors |= {found[key] or "" for key in ("id", "name") if key in found}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "docs", str(folder / "html"), "-d", str(folder / "trees")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.mark.slow
def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {path: read(path) for path in site.rglob("*.html")}
    missing = []
    for path, page in pages.items():
        for link, target, anchor in inner_links(path, page, site):
            if not target.exists() or (anchor and anchor not in pages[target].anchors):
                missing.append(f"{path.relative_to(site)}: {link}")
    assert not missing, "\n".join(missing)
    assert len(pages) > 30
    assert not [link for page in pages.values() for link in page.links if external_asset(link)]


@pytest.mark.slow
def test_references_are_generated(site: Path) -> None:
    configuration = (site / "configuration.html").read_text()
    assert 'id="confval-train.batch_size"' in configuration
    assert "over all devices and micro-batches" in configuration
    commands = (site / "commands.html").read_text()
    assert 'id="cmdoption-hiera-video-predict-window"' in commands
    api = (site / "api.html").read_text()
    assert 'id="hiera_video.create_model"' in api


def read(path: Path) -> Links:
    page = Links()
    page.feed(path.read_text())
    return page


def inner_links(path: Path, page: Links, site: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield each link within the site, with the file and the anchor that it leads to."""
    for link in page.links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if target.is_dir():
            target /= "index.html"
        anchor = parts.fragment if target.suffix == ".html" else ""
        yield link, site / target.relative_to(site), anchor


def external_asset(link: str) -> bool:
    """Return True for a script, style or font of another host: pages work without a network."""
    return link.startswith(("http", "//")) and link.endswith((".js", ".css", ".woff2"))
