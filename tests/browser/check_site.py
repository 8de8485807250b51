"""The documentation's website in a real browser, on a desktop and a phone: `make test-browser`.

Needs chromium, playwright and the website (`make docs`). `PICTURE=x.png` keeps a picture of the
front page.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
PAGES = sorted(path for path in SITE.rglob("*.html") if "_static" not in path.parts)
SCREENS = {"desktop": (1280, 900, False), "phone": (390, 844, True)}
"""Width, height, mobile."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "no chromium on this machine; `make test-browser` installs it"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.mark.parametrize("screen", SCREENS)
def test_pages_fit_the_screen_and_load_without_a_network(browser: Browser, screen: str) -> None:
    assert len(PAGES) > 30, "build the website first: make docs"
    width, height, mobile = SCREENS[screen]
    context = browser.new_context(
        viewport={"width": width, "height": height}, is_mobile=mobile, offline=True
    )
    page = context.new_page()
    faults: list[str] = []
    page.on("requestfailed", lambda request: faults.append(f"not loaded: {request.url}"))
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    for path in PAGES:
        page.goto(path.as_uri())
        # on a phone, the window's own width grows with a page that is too wide
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            faults.append(f"{path.name}: {wide} pixels wide on a screen of {width}")
        if page.locator("h1").count() != 1 and path.stem != "search":
            faults.append(f"{path.name}: {page.locator('h1').count()} titles")
    picture = os.environ.get("PICTURE")
    if picture:
        page.goto((SITE / "index.html").as_uri())
        page.screenshot(path=Path(picture).with_stem(f"{Path(picture).stem}_{screen}"))
    context.close()
    assert not faults, "\n".join(faults)
