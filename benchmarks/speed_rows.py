"""Rows of results: stored in one file, one row a case, and printed as a table."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from record import RESULTS, facts

NAMES = {
    "ours": "ours",
    "ours_half": "ours, decoder on half of the hidden tokens",
    "reference": "hiera-transformer",
    "optim": "hiera-transformer with hiera-optim",
    "timm": "timm",
    "transformers": "transformers",
    "floor": "lower bound: bare products and attention",
    "floor_half": "lower bound of the half decoder",
}
PACKAGES = ("torch", "hiera-transformer", "hiera-optim", "timm", "transformers", "hiera-video")


def add_row(name: str, row: dict[str, Any], path: Path | None = None) -> Path:
    """Add a row to `results/<name>.json`, or `path`, replacing an older one of the same case."""
    path = path or RESULTS / f"{name}.json"
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    row = row | facts(PACKAGES) | {"load_average": round(os.getloadavg()[0], 2)}
    kept = [old for old in rows if old["case"] != row["case"] or _place(old) != _place(row)]
    path.write_text(json.dumps({"rows": [*kept, row]}, indent=1) + "\n")
    return path


def _place(row: dict[str, Any]) -> Any:
    return row["machine"].get("gpu", row["machine"]["cpu"])


def title(case: dict[str, Any]) -> str:
    """Describe a case in one line."""
    kind = {"model": "inference", "train": "fine-tuning step", "mae": "pre-training step"}[
        case["mode"]
    ]
    shape = f"{case['resolution']}" if case["images"] else f"{case['frames']}x{case['resolution']}"
    place = (
        "one GPU"
        if case["device"] == "cuda"
        else f"{case['threads']} thread{'s' * (case['threads'] > 1)}"
    )
    extra = ", compiled" * case["compiled"] + ", CPU time" * (case["clock"] == "cpu")
    return f"{kind}, {case['size']} {shape}, batch {case['batch']}, {case['dtype']}, {place}{extra}"


def print_row(row: dict[str, Any]) -> None:
    """Print the table of one case."""
    print(f"\n{title(row['case'])}: {row['macs'] / 1e9:.1f} GMACs, {row['rounds']} rounds")
    print(f"{'':46}{'seconds':>24}{'over ours':>22}{'over bound':>12}{'peak GB':>10}")
    for name, time in row["seconds"].items():
        seconds = f"{time['median']:.4g} ({time['least']:.4g}–{time['most']:.4g})"
        ratio = row["times_ours"].get(name)
        over = f"{ratio['median']:.2f} ({ratio['least']:.2f}–{ratio['most']:.2f})" if ratio else ""
        own = "floor_half" if name.endswith("half") else "floor"
        floor = row["seconds"].get(own)
        above = f"{time['median'] / floor['median']:.2f}" if floor and name != own else ""
        memory = f"{row['memory'][name]['peak']:.2f}" if name in row["memory"] else ""
        print(f"{NAMES[name]:46}{seconds:>24}{over:>22}{above:>12}{memory:>10}")
    print(
        f"ours: {100 * row['mfu']:.0f} % of the machine's fastest matrix product; minimal memory "
        f"traffic at {100 * row['bytes_over_copy']:.0f} % of its copy"
    )
    for name, package in row["absent"].items():
        remedy = "pip install 'hiera-video[bench]' adds it"
        print(f"skipped: {NAMES[name]} ({package} is not installed; {remedy})")
    for name, far in row["differences"].items():
        differs = "  NOT THE SAME" if name in row["differs"] else ""
        print(f"{NAMES[name]}: relative difference {far:.1e}{differs}")
