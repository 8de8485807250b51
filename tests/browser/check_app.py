"""The demo page in a real browser, on a desktop and a phone: `make test-browser`.

Needs chromium and playwright. The page is served with a model that is not trained, or, if the
environment variable `RUN` names one, with a real run; `PICTURE=x.png` keeps pictures of it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "app"))
from page_client import served

SCREENS = {"desktop": (1280, 1000, False), "phone": (390, 844, True)}
"""Width, height, mobile."""
PATIENCE = 300_000
"""Milliseconds after which a part of the page that does not appear is missing."""
COUNT_PARTS = """
window.recordedParts = 0;
window.MediaRecorder = class extends window.MediaRecorder {
  constructor(...options) {
    super(...options);
    this.addEventListener("dataavailable", () => ++window.recordedParts);
  }
};
"""
"""Counts the parts of a recording, each of 200 ms or, on a busy machine, more."""
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "no chromium on this machine; `make test-browser` installs it"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", *CAMERA]
        found = playwright.chromium.launch(executable_path=program, args=arguments)
        yield found
        found.close()


@pytest.fixture(scope="module")
def film(shared_videos: Any) -> Path:
    path: Path = shared_videos.write("app/film.mp4", 60)
    return path


@pytest.fixture(scope="module")
def address(
    random_model: Any, film: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    if run := os.environ.get("RUN"):
        arguments = ["--run", str(Path(run).resolve())]
        if store := os.environ.get("STORE"):
            arguments += ["--store", str(Path(store).resolve())]
    else:
        import hiera_video as hv

        names = ("left", "right", "<img src=x onerror=document.title='taken'>")
        hv.save_pretrained(random_model(), folder / "model", class_names=names)
        arguments = ["--model", "hiera_micro_16x32", "--checkpoint", str(folder / "model")]
        arguments += [f"input={film}"]
    with served(arguments, folder) as (found, _):
        yield found


class Visit:
    """A page that is open in the browser, and what went over the network and wrong in it."""

    def __init__(self, browser: Browser, address: str, screen: str) -> None:
        width, height, mobile = SCREENS[screen]
        self.address, self.width = address, width
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            is_mobile=mobile,
            permissions=["camera"],
        )
        self.context.set_default_timeout(PATIENCE)
        self.page: Page = self.context.new_page()
        self.page.add_init_script(COUNT_PARTS)
        self.requests: list[str] = []
        self.faults: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on(
            "response",
            lambda answer: answer.status >= 400 and self.faults.append(f"{answer.url} not there"),
        )
        self.page.goto(address)
        self.page.wait_for_selector("#answer")

    def wait_for_answer(self) -> str:
        self.page.wait_for_selector("#answer table, #answer .error")
        assert self.page.locator("#answer .error").all_inner_texts() == []
        self.page.wait_for_selector("#evidence img")
        return self.page.inner_text("#answer")

    def check(self) -> None:
        """Check that nothing left the machine, nothing failed, and all fits the screen."""
        own = (f"{self.address}/", f"blob:{self.address}/", "data:")
        assert [url for url in self.requests if not url.startswith(own)] == []
        assert self.faults == []
        assert self.page.title() != "taken"
        wide = self.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= self.width
        images = self.page.evaluate(
            "[...document.querySelectorAll('.hv img')]"
            ".map(image => [image.complete, image.naturalWidth, image.alt])"
        )
        assert images and all(complete and width and alt for complete, width, alt in images)

    def keep_picture(self, name: str) -> None:
        if picture := os.environ.get("PICTURE"):
            path = Path(picture)
            self.page.screenshot(path=path.with_stem(f"{path.stem}_{name}"), full_page=True)


@pytest.mark.parametrize("screen", SCREENS)
def test_an_upload_is_answered_without_a_request_to_another_server(
    browser: Browser, address: str, film: Path, screen: str
) -> None:
    visit = Visit(browser, address, screen)
    visit.page.set_input_files("#video input[type=file]", os.environ.get("FILM", str(film)))
    assert "%" in visit.wait_for_answer()
    assert visit.page.locator("#timeline img").count() >= 1
    assert visit.page.locator("#evidence img").count() == 3
    before = visit.page.locator("#evidence img").nth(1).get_attribute("src")
    visit.page.locator("#target input").nth(1).click()
    visit.page.wait_for_function(
        "before => document.querySelectorAll('#evidence img')[1]?.src !== before",
        arg=before,
    )
    visit.keep_picture(screen)
    visit.check()
    visit.context.close()


def test_an_example_is_answered(browser: Browser, address: str) -> None:
    visit = Visit(browser, address, "desktop")
    visit.page.locator("#examples button").first.click()
    visit.wait_for_answer()
    assert visit.page.locator("#video video").count() == 1
    visit.check()
    visit.context.close()


def record(page: Page, parts: int) -> None:
    """Record the camera, which is chromium's own: a green picture with a clock."""
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_label("start recording").click()
    # not with each picture of the page: a busy machine draws few
    page.wait_for_function("parts => window.recordedParts >= parts", arg=parts, polling=100)
    page.get_by_text("Stop", exact=True).click()


@pytest.mark.parametrize("screen", SCREENS)
def test_a_recording_of_the_camera_is_answered(browser: Browser, address: str, screen: str) -> None:
    visit = Visit(browser, address, screen)
    record(visit.page, parts=12)  # 2.4 s, or more on a busy machine
    answer = visit.wait_for_answer()
    assert answer.count("%") >= 3 and "640×480" in answer
    assert visit.page.locator("#timeline img").count() >= 1
    assert visit.page.locator("#evidence img").count() == 3
    visit.keep_picture(f"camera_{screen}")
    # its length is not in the file, so the player asks for its end, which may be deleted by then
    visit.faults = [fault for fault in visit.faults if not fault.endswith("webm not there")]
    visit.check()
    visit.context.close()


def test_a_file_that_is_no_video_is_one_line(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    visit = Visit(browser, address, "desktop")
    junk = tmp_path / "junk.mp4"
    junk.write_text("not a video")
    visit.page.set_input_files("#video input[type=file]", junk)
    visit.page.wait_for_selector("#answer .error")
    words = "the video: cannot be opened as a video (Invalid data found when processing input)"
    assert visit.page.inner_text("#answer .error") == words
    visit.context.close()
