"""The report in a real browser, on a desktop and a phone: `make test-browser`.

Needs chromium and playwright, so its name keeps it out of `make test`. The pages are of a test with
mistakes, long names and unreadable videos, of a multi-label test, and, if the environment variable
`REPORT` names one, of a real run; a picture of that is written to `PICTURE`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from hiera_video.data.dataset import UnreadableVideo
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.eval.report import write_report
from hiera_video.eval.results import EvalSetup, write_results
from hiera_video.eval.views import Predictions
from hiera_video.video.encode import write_video

NAMES = (
    "Pretending to put something next to something else that is not there",
    "Donaudampfschifffahrtsgesellschaft" * 3,
    *(f"class {index}" for index in range(2, 40)),
)
LONG_NAME = "a_missing_file_with_a_name_that_is_far_too_long_" * 3
SCREENS = {"desktop": (1280, 900, False, 1), "phone": (390, 844, True, 2)}
"""Width, height, mobile, device scale factor."""
MAX_BYTES = 200_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    assert program, "no chromium on this machine; `make test-browser` installs it"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


def report(folder: Path, *, multi_label: bool) -> Path:
    """Write the report of random predictions for 30 videos, two of them unreadable."""
    generator = np.random.default_rng(0)
    records = []
    for row in range(30):
        size = (240, 320) if row % 2 else (48, 64)
        if row < 12:
            write_video(
                folder / f"{row}.mp4", generator.integers(0, 255, (8, *size, 3), dtype=np.uint8)
            )
        path = folder / f"{row % 12 if row < 28 else LONG_NAME}.mp4"
        label = (row % 40, 39 - row) if multi_label else row % 40
        records.append(Record(path=str(path), label=label, row=row))
    manifest = Manifest(
        records=tuple(records),
        class_names=NAMES,
        multi_label=multi_label,
        source=str(folder / "val.csv"),
    )
    unreadable = tuple(
        UnreadableVideo(row=row, path=records[row].path, reason="missing", message="-")
        for row in (28, 29)
    )
    logits = generator.normal(0, 3, (28, 15, 40)).astype(np.float32)
    logits[::2, :, :] += 9 * np.eye(40, dtype=np.float32)[np.arange(0, 28, 2)][:, None]
    predictions = Predictions(np.arange(28), logits, unreadable, generator.random(28))
    setup = EvalSetup(
        model="hiera_base_16x224",
        checkpoint="runs/" + "long_name_" * 12,
        clips=5,
        crops=3,
        precision="bf16",
    )
    metrics = [
        {"step": 10, "split": "train", "loss": 2.0},
        {"step": 20, "split": "val", "top1": 3.0, "mAP": 3.0},
    ]
    results = write_results(folder, setup, predictions, manifest)
    return write_report(folder, results, predictions, manifest, metrics)


def check_page(browser: Browser, path: Path, screen: str) -> bytes:
    """Check the page; return a screenshot of its top, on the phone of its film strips."""
    width, height, mobile, scale = SCREENS[screen]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        is_mobile=mobile,
        device_scale_factor=scale,
        offline=True,
    )
    page = context.new_page()
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.resolve().as_uri())
    assert not messages, messages
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    facts: dict[str, Any] = page.evaluate(
        """() => ({
            wide: document.documentElement.scrollWidth,
            screen: window.innerWidth,
            images: [...document.images].map(i => [i.complete, i.naturalWidth, i.alt]),
            outside: [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll')
                && e.getBoundingClientRect().right > window.innerWidth + 1)
                .map(e => e.outerHTML.slice(0, 80)),
            smallest: Math.min(...[...document.querySelectorAll('body, body *')].map(
                e => parseFloat(getComputedStyle(e).fontSize))),
        })"""
    )
    assert facts["wide"] <= facts["screen"] == width and facts["outside"] == [], facts
    assert facts["images"] and all(
        complete and natural for complete, natural, _ in facts["images"]
    ), facts["images"]
    assert facts["smallest"] >= 12
    if mobile:
        page.evaluate("document.querySelector('.clips').previousElementSibling.scrollIntoView()")
    picture = page.screenshot()
    context.close()
    return picture


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("multi_label", [False, True], ids=["one label", "several labels"])
def test_the_page_fits_the_screen(
    browser: Browser, tmp_path: Path, multi_label: bool, screen: str
) -> None:
    page = report(tmp_path, multi_label=multi_label)
    assert len(check_page(browser, page, screen)) > 10_000


@pytest.mark.skipif("REPORT" not in os.environ, reason="needs the report of a real run in REPORT")
def test_a_real_page_and_its_picture(browser: Browser, tmp_path: Path) -> None:
    """The picture shows the desktop with the phone beside it, in less than 200 kB."""
    source, target = Path(os.environ["REPORT"]), Path(os.environ["PICTURE"])
    pictures = []
    for screen in SCREENS:
        (tmp_path / "one.png").write_bytes(check_page(browser, source, screen))
        pictures.append(Image.open(tmp_path / "one.png").convert("RGB"))
    desktop, phone = (
        picture.resize((picture.width * 780 // picture.height, 780), Image.Resampling.LANCZOS)
        for picture in pictures
    )
    both = Image.new("RGB", (desktop.width + phone.width + 24, 780), (200, 206, 216))
    both.paste(desktop, (0, 0))
    both.paste(phone, (desktop.width + 24, 0))
    both.quantize(128).save(target, optimize=True)
    assert target.stat().st_size < MAX_BYTES
