"""Generate SPEED.md, its figures and the table of docs/performance.md from the measurements.

    python benchmarks/speed_page.py          # `make bench` runs this at its end

Reads results/speed.json, scaling.json and decoder_half.json, those that exist; no number of these
pages is written by hand. `--results`, `--pages` and `--docs` take other folders.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from record import RESULTS
from speed import SIZES
from speed_lower_bound import Attention, layers_of, total_macs
from speed_plots import AXES, Row, draw_half, draw_scaling, draw_speed, points
from speed_rows import NAMES, title

from hiera_video.models.registry import config_for

PAGES = RESULTS.parent
DOCS = RESULTS.parents[1] / "docs"
BEGIN, END = "<!-- speed:begin -->\n", "<!-- speed:end -->"
"""Marks in docs/performance.md around the generated table."""
WIDTH = 98
HEAD = """# Speed: all measurements

`benchmarks/speed_page.py` generates this page from `benchmarks/results/`; `make bench` repeats all
measurements. [Notes on speed](NOTES.md) describes the method.

- The implementations of a table run in one process with the same weights. Their results are
  compared before timing; then they take turns.
- "over ours" is the median of the ratios within a round, with the smallest and the largest.
- The lower bound is the model's matrix products and attentions alone, without bias, norm, GELU,
  residual or copy, on preallocated memory. Its float32 products run by torch.mm or oneDNN,
  whichever is faster. In the scaling measurements they run by torch.mm alone, so ours can be below
  it there.
- Peak memory is that of a process that runs one implementation alone, minus what its packages
  take. It varies by 0.03 GB between processes.

"""


def main() -> None:
    """Write the pages and their figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--pages", type=Path, default=PAGES)
    parser.add_argument("--docs", type=Path, default=DOCS)
    arguments = parser.parse_args()
    print(write(arguments.results, arguments.pages, arguments.docs))


def write(results: Path, pages: Path, docs: Path) -> Path:
    """Write SPEED.md to `pages`, and its first figure and the summary to `docs`."""
    speed, scaling = (rows_of(results / f"{name}.json") for name in ("speed", "scaling"))
    text = HEAD
    if speed:
        draw_speed(speed, docs / "speed.png")
        figure = os.path.relpath(docs / "speed.png", pages)
        text += f"![Time of each implementation over ours]({figure})\n\n" + "".join(
            speed_table(row) for row in speed
        )
        write_summary(speed, docs / "performance.md")
    if scaling:
        draw_scaling(scaling, pages / "scaling.png")
        text += scaling_text(scaling)
    half = results / "decoder_half.json"
    if half.is_file():
        result = json.loads(half.read_text())
        draw_half(result, pages / "decoder_half.png")
        text += half_text(result)
    if not any(row["case"]["device"] == "cuda" for row in speed):
        text += "## On a GPU\n\n" + paragraph(
            "[Performance](../docs/performance.md#on-a-gpu) has the measurements of `make gpu`. "
            "The commands of this page take `--device cuda` too."
        )
        text += "\n"
    page = pages / "SPEED.md"
    page.write_text(text)
    return page


def write_summary(rows: Sequence[Row], page: Path) -> None:
    """Replace the table between the marks of `page`, if the page exists."""
    if page.is_file():
        before, _, rest = page.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        page.write_text(f"{before}{BEGIN}{summary(rows)}{END}{after}")


def summary(rows: Sequence[Row]) -> str:
    """Return one table: a line for each size, at one float32 clip of 16x224 on a CPU.

    A step is forward and backward. `×` is the time of hiera-transformer over ours.
    """
    lines = [
        "| size | GMACs | inference, s | × | GB | fine-tuning step, s | × | GB "
        "| pre-training step, s | × | GB |",
        f"|{'---|' * 11}",
    ]
    for size in SIZES:
        found = {mode: _one_clip(rows, mode, size) for mode in ("model", "train", "mae")}
        model = found["model"]
        if model is None:
            continue
        cells = [size.replace("_", " "), f"{model['macs'] / 1e9:.0f}"]
        for row in found.values():
            cells += _cells(row) if row else ["–"] * 3
        lines.append(f"| {' | '.join(cells)} |")
    machines = {(row["machine"]["cpu"], row["machine"]["cores"], row["date"]) for row in rows}
    places = "; ".join(f"{cpu}, {cores} cores, {date}" for cpu, cores, date in sorted(machines))
    return "\n".join(lines) + f"\n\n{paragraph(f'Measured on {places}.')}\n"


def _one_clip(rows: Sequence[Row], mode: str, size: str) -> Row | None:
    """Return the measurement of one float32 clip of 16x224; pre-training was measured with more."""
    case = {"mode": mode, "size": size, "dtype": "float32", "frames": 16, "resolution": 224}
    case |= {"images": False, "device": "cpu", "batch": 1}
    matching = [row for row in rows if all(row["case"][key] == case[key] for key in case)]
    return matching[0] if matching else None


def _cells(row: Row) -> list[str]:
    ratio = row["times_ours"].get("reference")
    peak = row["memory"].get("ours", {}).get("peak")
    return [
        f"{row['seconds']['ours']['median']:.3g}",
        f"{ratio['median']:.2f}" if ratio else "–",
        f"{peak:.2f}" if peak else "–",
    ]


def rows_of(path: Path) -> list[Row]:
    """Return the rows of a file in the order of the page; none if it does not exist."""
    rows: list[Row] = json.loads(path.read_text())["rows"] if path.is_file() else []
    modes = ("model", "train", "mae")
    order = ("images", "size", "dtype", "batch", "frames", "resolution")
    keys = {
        id(row): (modes.index(row["case"]["mode"]), *(_rank(row["case"][key]) for key in order))
        for row in rows
    }
    return sorted(rows, key=lambda row: keys[id(row)])


def _rank(value: Any) -> Any:
    return (
        SIZES.index(value)
        if value in SIZES
        else value == "bfloat16"
        if isinstance(value, str)
        else value
    )


def speed_table(row: Row) -> str:
    """Return the section of one case."""
    lines = ["| | seconds | over ours | over lower bound | peak GB |", "|---|---|---|---|---|"]
    for name, time in row["seconds"].items():
        own = "floor_half" if name.endswith("half") else "floor"
        ratio, floor = row["times_ours"].get(name), row["seconds"].get(own)
        cells = [
            NAMES[name],
            f"{time['median']:.3g}",
            f"{ratio['median']:.2f} × ({ratio['least']:.2f}–{ratio['most']:.2f})" if ratio else "",
            f"{time['median'] / floor['median']:.2f} ×" if floor and name != own else "",
            f"{row['memory'][name]['peak']:.2f}" if name in row["memory"] else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    same = max(row["differences"].values(), default=0.0)
    facts = paragraph(
        f"{row['macs'] / 1e9:.1f} GMACs. Ours reaches {100 * row['mfu']:.0f} % of the best "
        "measured matrix product; its least possible memory traffic is at "
        f"{100 * row['bytes_over_copy']:.0f} % of a copy's rate. Results agree to {same:.0e}. "
        f"Products of the lower bound by {row.get('floor_products', 'torch.mm')}. {source(row)}"
    )
    return f"## {title(row['case']).capitalize()}\n\n" + "\n".join(lines) + f"\n\n{facts}\n\n"


def source(row: Row) -> str:
    """Return machine, versions and date of a row."""
    machine, versions = row["machine"], row["versions"]
    known = ", ".join(
        f"{package} {versions[package]}" for package in versions if package != "hiera-video"
    )
    place = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores"
    rounds = "one round" if row["rounds"] == 1 else f"{row['rounds']} rounds"
    return f"{place}, {rounds}, load {row['load_average']}, {row['date']}; {known}."


def scaling_text(rows: Sequence[Row]) -> str:
    """Return the section on longer, larger and more clips."""
    text = "## Scaling\n\n![Time and memory by frames, resolution, batch and size](scaling.png)\n\n"
    text += paragraph(
        "Inference, varying one axis at a time from one clip of base 16x224. A case is frames × "
        "pixels, size, clips. *Attention* is "
        "attention over the whole clip (stage 3, and the first block of stage 4): its share of the "
        "multiply-accumulates (MACs) and of the time."
    )
    text += (
        "\n\n| case | GMACs | seconds | over lower bound "
        "| attention: MACs | time | peak GB |\n|---|---|---|---|---|---|---|\n"
    )
    shown = []
    for key in AXES:
        for row in points(rows, key):
            if row in shown:
                continue
            shown.append(row)
            case, ours, floor = (
                row["case"],
                row["seconds"]["ours"]["median"],
                row["seconds"]["floor"]["median"],
            )
            text += (
                f"| {case['frames']}x{case['resolution']}, {case['size']}, {case['batch']} "
                f"| {row['macs'] / 1e9:.0f} | {ours:.3g} | {ours / floor:.2f} × "
                f"| {100 * row['attention_macs']:.0f} % | {100 * row['attention_time']:.0f} % "
                f"| {row['memory'].get('peak', float('nan')):.2f} |\n"
            )
    return f"{text}\n{takeover(rows)}\n\n{paragraph(source(shown[0]) if shown else '')}\n\n"


def takeover(rows: Sequence[Row]) -> str:
    """Describe where attention dominates, and the cost of doubling each axis."""

    def share(frames: int, side: int) -> float:
        layers = layers_of(config_for("hiera_base_16x224", input_size=(frames, side, side)))
        whole = [layer for layer in layers if isinstance(layer, Attention) and layer.whole]
        return total_macs(whole) / total_macs(layers)

    frames = next(n for n in range(8, 1024, 2) if share(n, 224) > 0.5)
    side = next(n for n in range(96, 2048, 32) if share(16, n) > 0.5)
    words = (
        "Attention over the whole clip takes more than half of base's multiply-accumulates from "
        f"{frames} frames at 224 pixels, and from {side} pixels at 16 frames. "
    )
    doubled = []
    for key, before, after in (
        ("frames", 16, 32),
        ("frames", 32, 64),
        ("batch", 1, 2),
        ("resolution", 224, 320),
    ):
        found = {row["case"][key]: row["seconds"]["ours"]["median"] for row in points(rows, key)}
        if before in found and after in found:
            doubled.append(f"{key} {before} → {after}: {found[after] / found[before]:.2f} ×")
    if doubled:
        words += "Time: " + ", ".join(doubled) + ". "
    batches = {
        row["case"]["batch"]: row["seconds"]["ours"]["median"] for row in points(rows, "batch")
    }
    if len(batches) > 1 and 1 in batches:
        most = max(batches)
        share_of_time = batches[most] / most / batches[1]
        words += f"A clip in a batch of {most} takes {share_of_time:.2f} of its time alone. "
    return paragraph(
        f"{words}To cover a longer span, first increase the frame stride, which costs nothing; "
        "then use more views of 16 frames, which cost in proportion; use more frames in a clip "
        "where the order over the whole span matters. Time grows faster than the number of pixels."
    )


def half_text(result: Row) -> str:
    """Return the section on the loss with half of the decoder's tokens."""
    last = {name: run["val"][-1]["loss"] for name, run in result["runs"].items()}
    return (
        "## Decoder on half of the hidden tokens\n\n![Loss of both](decoder_half.png)\n\n"
        + paragraph(
            f"After {result['epochs']} epochs of micro on the motion set's harder variant, the "
            f"validation loss is {last['all']:.4f} with all hidden tokens decoded and "
            f"{last['running_cell']:.4f} with half of them (`mae.decoder_tokens=running_cell`). "
            f"{result['machine']['cpu']}, {result['date']}; `{result['command']}`."
        )
        + "\n\n"
    )


def paragraph(text: str) -> str:
    """Wrap text to the page's width."""
    return fill(text, WIDTH, break_on_hyphens=False, break_long_words=False)


if __name__ == "__main__":
    main()
