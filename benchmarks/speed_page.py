"""docs/speed.md and its pictures from what was measured.

    python benchmarks/speed_page.py          # make bench does it at its end

Reads results/speed.json, scaling.json and decoder_half.json, as far as they are there; no number of the page is written
by hand. `--results` and `--docs` take other folders.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from record import RESULTS
from speed import SIZES
from speed_floor import Attention, layers_of, total_macs
from speed_plots import AXES, Row, draw_half, draw_scaling, draw_speed, points
from speed_rows import NAMES, title

from hiera_video.models.registry import config_for

DOCS = RESULTS.parents[1] / "docs"
HEAD = """# Speed

Written by `benchmarks/speed_page.py` from `benchmarks/results/`; `make bench` measures everything anew. In each row all run
in one process with the same weights, their results are compared first, then they take turns; "over ours" is the median of
the ratios of each round, with the least and the most. The floor is the model's matrix products and attentions alone,
without bias, norm, GELU, residual or copy, on memory that is there already; its float32 products run by torch.mm or oneDNN,
whichever is quicker (those of the curves by torch.mm: ours can lie below them). Peak memory is that of a process which runs
this one alone, less what its packages take; it varies by 0.03 GB from one process to the next.

"""


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    arguments = parser.parse_args()
    print(write(arguments.results, arguments.docs))


def write(results: Path, docs: Path) -> Path:
    """The page and its pictures in `docs`."""
    speed, scaling = (rows_of(results / f"{name}.json") for name in ("speed", "scaling"))
    text = HEAD
    if speed:
        draw_speed(speed, docs / "speed.png")
        text += "![Seconds of each over ours](speed.png)\n\n" + "".join(
            speed_table(row) for row in speed
        )
    if scaling:
        draw_scaling(scaling, docs / "scaling.png")
        text += scaling_text(scaling)
    half = results / "decoder_half.json"
    if half.is_file():
        result = json.loads(half.read_text())
        draw_half(result, docs / "decoder_half.png")
        text += half_text(result)
    if not any(row["case"]["device"] == "cuda" for row in speed):
        text += "## On a GPU\n\nNot measured: no GPU was at hand. The same commands take `--device cuda`.\n"
    page = docs / "speed.md"
    page.write_text(text)
    return page


def rows_of(path: Path) -> list[Row]:
    """Those of a file, or none."""
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
    """One case."""
    lines = ["| | seconds | over ours | over its floor | peak GB |", "|---|---|---|---|---|"]
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
    facts = (
        f"{row['macs'] / 1e9:.1f} GMACs; ours at {100 * row['mfu']:.0f} % of the best matrix product that was measured, its "
        f"least memory traffic at {100 * row['bytes_over_copy']:.0f} % of a copy's; all compute the same to {same:.0e}. "
        f"Floor's products by {row.get('floor_products', 'torch.mm')}. {source(row)}"
    )
    return f"## {title(row['case']).capitalize()}\n\n" + "\n".join(lines) + f"\n\n{facts}\n\n"


def source(row: Row) -> str:
    """Where, with what, when."""
    machine, versions = row["machine"], row["versions"]
    known = ", ".join(
        f"{package} {versions[package]}" for package in versions if package != "hiera-video"
    )
    place = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores"
    rounds = "one round" if row["rounds"] == 1 else f"{row['rounds']} rounds"
    return f"{place}, {rounds}, load {row['load_average']}, {row['date']}; {known}."


def scaling_text(rows: Sequence[Row]) -> str:
    """Tables, where attention takes over, and what that means for a choice."""
    text = "## As a clip grows\n\n![Time and memory as a clip grows](scaling.png)\n\n"
    text += (
        "Inference; one axis at a time from base 16x224, one clip. "
        "*Attention* is that over the whole clip (stage 3, and the first block of stage 4): its share of the "
        "multiply-accumulates and of the time.\n\n| frames × pixels, size, clips | GMACs | seconds | of the floor | attention: "
        "MACs | time | peak GB |\n|---|---|---|---|---|---|---|\n"
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
                f"| {case['frames']}x{case['resolution']}, {case['size']}, {case['batch']} | {row['macs'] / 1e9:.0f} "
                f"| {ours:.3g} | {ours / floor:.2f} × | {100 * row['attention_macs']:.0f} % "
                f"| {100 * row['attention_time']:.0f} % "
                f"| {row['memory'].get('peak', float('nan')):.2f} |\n"
            )
    return f"{text}\n{takeover(rows)}\n{source(shown[0]) if shown else ''}\n\n"


def takeover(rows: Sequence[Row]) -> str:
    """In words: from where attention costs more than everything else, and what doubling each axis costs."""

    def share(frames: int, side: int) -> float:
        layers = layers_of(config_for("hiera_base_16x224", input_size=(frames, side, side)))
        whole = [layer for layer in layers if isinstance(layer, Attention) and layer.whole]
        return total_macs(whole) / total_macs(layers)

    frames = next(n for n in range(8, 1024, 2) if share(n, 224) > 0.5)
    side = next(n for n in range(96, 2048, 32) if share(16, n) > 0.5)
    words = (
        f"By multiply-accumulates, base at 224 pixels spends more than half of its work on that attention from {frames} frames "
        f"on, and at 16 frames from {side} pixels on. "
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
        words += f"A clip in a batch of {most} takes {batches[most] / most / batches[1]:.2f} of the time that it takes alone. "
    return (
        words
        + "So, for a longer span: first a larger frame stride, which costs nothing; then more views of 16 frames, which "
        "cost in proportion; more frames a clip where the order over the whole span decides. A larger picture costs more than "
        "its pixels.\n"
    )


def half_text(result: Row) -> str:
    """What half a decoder costs in loss."""
    last = {name: run["val"][-1]["loss"] for name, run in result["runs"].items()}
    return (
        "## Decoder on half of the hidden tokens\n\n![Loss of both](decoder_half.png)\n\n"
        f"After {result['epochs']} passes of micro on the motion set's harder variant the held-out loss is "
        f"{last['all']:.4f} with all hidden tokens decoded and {last['running_cell']:.4f} with half of them "
        "(`mae.decoder_tokens=running_cell`). "
        f"{result['machine']['cpu']}, {result['date']}; `{result['command']}`.\n\n"
    )


if __name__ == "__main__":
    main()
