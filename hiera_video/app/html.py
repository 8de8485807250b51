"""The parts of the page as HTML: pictures lie in the text, names are escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiera_video.app.analysis import Analysis
from hiera_video.utils.text_files import escape_names, printable

CSS = """
.hv { overflow-x: auto; }
.hv h2 { font-size: 1.1em; font-weight: 600; margin: .4em 0 0 0; }
.hv table, .hv tr, .hv td, .hv th { border: none !important; }
.hv table { border-collapse: separate; border-spacing: 3px; }
.hv td, .hv th { font-weight: 400; font-size: 14px; padding: 2px 4px; text-align: center; }
.hv th { text-align: left; min-width: 6em; max-width: 16em; overflow-wrap: break-word; }
h1 { overflow-wrap: anywhere; }
.hv .cell { min-width: 3.2em; border-radius: 4px; }
.hv .time { font-size: 12px; opacity: .75; white-space: nowrap; }
.hv img { display: block; margin: 0; border-radius: 4px; max-width: none; }
.hv p + img { max-width: 100%; }  /* strips: all frames on a phone, too */
#video video { max-height: 270px; }
.hv .bar { width: 12em; max-width: 30vw; padding: 0; }
.hv .bar > div { background: rgba(59,111,196,.15); border-radius: 4px; }
.hv .bar > div > div { background: #3b6fc4; border-radius: 4px; height: 1em; }
.hv .first { font-size: 1.5em; font-weight: 600; margin: 0 0 .2em 0; overflow-wrap: anywhere; }
.hv .note { font-size: 13px; opacity: .8; margin: .3em 0; }
.hv .error { color: #b42318; }
"""

SCRIPT = """<script>
// gradio takes what the recorder has handed over when it is stopped: on a slow machine nothing, and
// never the end. So the click that stops is repeated once the recorder has handed over the rest.
let recorder = null;
window.MediaRecorder = class extends window.MediaRecorder {
  constructor(...options) { super(...options); recorder = this; }
  stop() { if (this.state !== "inactive") super.stop(); }
};
document.addEventListener("click", (event) => {
  const button = event.target.closest("#video button[aria-label='start recording']");
  if (!button || recorder?.state !== "recording") return;
  event.stopImmediatePropagation();
  recorder.addEventListener("stop", () => button.click(), { once: true });
  recorder.stop();
}, true);
</script>"""
"""Goes into the page's head."""


def block(content: str) -> str:
    """Return content as a part of the page."""
    return f'<div class="hv">{content}</div>'


def heading(text: str) -> str:
    """Return a heading."""
    return block(f"<h2>{text_of(text)}</h2>")


def note(text: str) -> str:
    """Return a line of small text."""
    return block(f'<p class="note">{text_of(text)}</p>')


def failure(text: str) -> str:
    """Return an error for the user."""
    return block(f'<p class="error" role="alert">{text_of(text)}</p>')


def text_of(text: str) -> str:
    """Return text as HTML, without control characters."""
    return escape(printable(escape_names(text)))


def name_of(analysis: Analysis, label: int) -> str:
    """Return the name of a class as HTML whose direction does not change the line around it."""
    return f"<bdi>{text_of(analysis.names[label])}</bdi>"


def picture(content: bytes, alt: str) -> str:
    """Return an image whose bytes lie in the page."""
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    data = base64.b64encode(content).decode()
    return f'<img src="data:image/{kind};base64,{data}" alt="{text_of(alt)}">'


def answer(analysis: Analysis) -> str:
    """Return the most likely classes of a video with bars."""
    means, video = analysis.means, analysis.video
    rows = "".join(
        f"<tr><th>{text_of(analysis.names[index])}</th>"
        f"<td class='bar'><div><div style='width:{means[index]:.1%}'></div></div></td>"
        f"<td>{means[index]:.1%}</td></tr>"
        for index in analysis.top
    )
    first, count = analysis.top[0], len(video.windows)
    mean = f"mean of {count} windows" if count > 1 else "one window"
    facts = f"{video.width}×{video.height}, {video.fps:.4g} fps, {video.duration_seconds:.1f} s"
    return block(
        f'<p class="first">{name_of(analysis, first)} {means[first]:.1%}</p>'
        f'<table>{rows}</table><p class="note">{facts}; {mean}</p>'
    )


def timeline(analysis: Analysis) -> str:
    """Return a table: a column for each window, with a picture and the classes' probabilities."""
    windows = analysis.video.windows
    pictures = "".join(
        f"<td>{picture(_jpeg(window.picture), f'frame at {window.start_seconds:.1f} s')}</td>"
        for window in windows
    )
    times = "".join(
        f'<td class="time">{window.start_seconds:.1f}–{window.end_seconds:.1f} s</td>'
        for window in windows
    )
    rows = "".join(
        f"<tr><th>{text_of(analysis.names[index])}</th>"
        f"{''.join(map(_cell, analysis.probabilities[:, index].tolist()))}</tr>"
        for index in analysis.top
    )
    table = f"<table><tr><th></th>{pictures}</tr><tr><th></th>{times}</tr>{rows}</table>"
    return heading("Over time") + block(table + _segments(analysis))


def _segments(analysis: Analysis) -> str:
    found = "; ".join(
        f"{segment.start_seconds:.1f}–{segment.end_seconds:.1f} s "
        f"{name_of(analysis, segment.label)} {segment.score:.0%}"
        for segment in analysis.segments
    )
    return f'<p class="note">Segments: {found or "none"}</p>'


def near(analysis: Analysis) -> str:
    """Return the nearest videos of the store; nothing without one."""
    if analysis.near is None:
        return ""
    if isinstance(analysis.near, str):
        return heading("Nearest videos") + f'<p class="note">{text_of(analysis.near)}</p>'
    return heading("Nearest videos") + block(picture(analysis.near, "nearest videos"))


def strips(pictures: Sequence[tuple[str, bytes]], caption: str) -> str:
    """Return pictures below each other, each with its name, and a caption."""
    shown = "".join(
        f'<p class="note">{text_of(name)}</p>{picture(content, name)}' for name, content in pictures
    )
    return block(f'{shown}<p class="note">{text_of(caption)}</p>')


def _cell(probability: float) -> str:
    colour = "#fff" if probability > 0.55 else "inherit"
    return (
        f'<td class="cell" style="background:rgba(59,111,196,{max(probability, 0.06):.2f});'
        f'color:{colour}">{probability:.0%}</td>'
    )


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()
