"""Write the GPU section of docs/performance.md from results/gpu_check.json.

    python benchmarks/gpu_page.py          # `make gpu` runs this at its end

Replaces what is between the two marks of the page. What has not been measured is shown as such.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from gpu_table import ceiling_tflops, model_share
from record import RESULTS

PAGE = RESULTS.parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- gpu:begin -->\n", "<!-- gpu:end -->"
NONE, WIDTH = "not measured", 98
Result = dict[str, Any]
KINDS = {"inference": "inference", "fine_tune": "fine-tuning step", "mae": "pre-training step"}
ROWS = [
    ("inference", "base", 1),
    ("inference", "base", 32),
    ("inference", "large", 1),
    ("inference", "large", 32),
    ("fine_tune", "base", 16),
    ("fine_tune", "large", 8),
    ("fine_tune", "large", 16),
    ("mae", "base", 32),
    ("mae", "large", 32),
]
"""Lines of the table: kind, size, batch."""


def main() -> None:
    """Write the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS / "gpu_check.json")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    path: Path = arguments.results
    result = json.loads(path.read_text()) if path.exists() else {"cases": {}}
    before, _, rest = arguments.page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    arguments.page.write_text(f"{before}{BEGIN}{section(result)}{END}{after}")
    print(arguments.page)


def section(result: Result) -> str:
    """Return the text between the marks."""
    cases = result["cases"]
    intro = (
        "Clips per second in bf16. Inference has bf16 weights, or float32 weights under autocast "
        "where that is named; training has autocast, fused AdamW and no activation checkpointing. "
        "MFU is the model's arithmetic over what a bf16 matrix product of 8192³ reaches on the "
        "same GPU. The last column is how ours ran fastest: as it is (eager), compiled by block, "
        "or replayed as a CUDA graph. × compares ours, not compiled, but in inference as a graph "
        "where that is faster, with `hiera-transformer` and `hiera-optim`, both in bf16, not "
        "compiled and without a graph, in turns in one process."
    )
    lines = [
        "| | batch | clips/s | MFU | GB | × hiera-transformer | × hiera-optim | ours |",
        f"|{'---|' * 8}",
        *(_model_line(result, kind, size, batch) for kind, size, batch in ROWS),
    ]
    parts = [_paragraph(_where(result)), _paragraph(intro), "\n".join(lines)]
    parts += ["\n".join(_trainer_lines(cases)), _paragraph(_programs(cases))]
    return "\n\n".join(parts) + "\n"


def _where(result: Result) -> str:
    device = result.get("device")
    if not device:
        return "Not measured yet. `make gpu` tests and measures all of this on one GPU."
    versions = result["versions"]
    ceilings = result["cases"].get("ceilings", {})
    limits = ""
    if "matmul_tflops" in ceilings:
        limits = (
            f" A matrix product reaches {ceilings['matmul_tflops']:.0f} TFLOP/s, a copy on the "
            f"device {ceilings['copy_gb_per_second'] / 1e3:.2f} TB/s, and a copy to it "
            f"{ceilings['pinned_gb_per_second']:.0f} GB/s from pinned memory and "
            f"{ceilings['pageable_gb_per_second']:.0f} GB/s from pageable memory."
        )
    return (
        f"{device['name']}, {result['date']}, torch {versions.get('torch')}, CUDA "
        f"{device.get('cuda')}, {result['machine']['cores']} CPU cores{_commits(result)}.{limits} "
        "`make gpu` repeats the measurements."
    )


def _commits(result: Result) -> str:
    """Return the commits of the runs, which measured different cases."""
    commits = [run["commit"] for run in result.get("runs", {}).values() if "commit" in run]
    return f", runs of the commits {', '.join(commits)}" if len(commits) > 1 else ""


def _model_line(result: Result, kind: str, size: str, batch: int) -> str:
    label = f"| {size}, {KINDS[kind]} | {batch} |"
    best = fastest(result["cases"], f"{kind}/{size}/{batch}")
    if best is None:
        return f"{label} {NONE} | – | – | – | – | – |"
    name, numbers, case = best
    mfu = model_share(case, numbers, ceiling_tflops(result))
    memory = numbers["peak_gb"]
    ratios = [_ratio(result["cases"], f"{kind}/{size}/{batch}", rival) for rival in RIVALS]
    return (
        f"{label} {numbers['clips_per_second']:.0f} | {'–' if mfu is None else f'{mfu:.0%}'} | "
        f"{'–' if memory is None else f'{memory:.1f}'} | {ratios[0]} | {ratios[1]} | "
        f"{', '.join(SWITCHES[switch] for switch in name.split('+')[1:]) or 'eager'} |"
    )


RIVALS = ("reference", "optim")
SWITCHES = {"compile": "compiled", "graph": "graph", "autocast": "autocast"}


def fastest(cases: Result, prefix: str) -> tuple[str, Result, Result] | None:
    """Return our fastest candidate of all cases of a name, its numbers and its case.

    Graphs count in inference alone: training does not use them.
    """
    switches = SWITCHES.keys() - (set() if prefix.startswith("inference") else {"graph"})
    found = [
        (name, numbers, case)
        for case in _of(cases, prefix)
        for name, numbers in case["candidates"].items()
        if name.startswith("ours") and set(name.split("+")[1:]) <= switches
    ]
    return max(found, key=lambda one: one[1]["clips_per_second"], default=None)


def _of(cases: Result, prefix: str) -> list[Result]:
    return [
        case
        for name, case in cases.items()
        if name.partition("+")[0] == prefix and "candidates" in case
    ]


def _ratio(cases: Result, prefix: str, rival: str) -> str:
    """Return our fastest rate over the rival's, of the case that has both."""
    case = cases.get(prefix, {})
    best = fastest({prefix: case}, prefix)
    if best is None or rival not in case["candidates"]:
        return "–"
    return f"{best[1]['clips_per_second'] / case['candidates'][rival]['clips_per_second']:.2f}"


def _trainer_lines(cases: Result) -> Sequence[str]:
    lines = [
        "| trainer on MP4 files, 320×240 | workers | clips/s | waiting for data |",
        "|---|---|---|---|",
    ]
    for name, case in cases.items():
        if name.startswith("trainer/") and "clips_per_second" in case:
            _, kind, size, decoder, place = name.split("/")
            lines.append(
                f"| {size}, {KINDS[kind]}, {decoder}, `augment.device={place}` | "
                f"{case['workers']} | {case['clips_per_second']:.0f} | "
                f"{case['data_wait_share']:.0%} |"
            )
    return lines if len(lines) > 2 else [*lines, f"| all | – | {NONE} | – |"]


COUNTS = ("passed", "failed", "skipped", "not_run")


def _programs(cases: Result) -> str:
    engine, demo = cases.get("engine/base", {}), cases.get("demo", {})
    tests = cases.get("tests", {})
    if "passed" not in tests:
        tests = {}
    counts = [f"{tests[key]} {key.replace('_', ' ')}" for key in COUNTS if tests.get(key)]
    share = f"{engine['bytes_share']:.1%}" if "bytes_share" in engine else NONE
    text = f"{_eager(cases)}Tests that need a GPU: {', '.join(counts) or 'not run'}. "
    text += f"The trainer on batches in memory, as a share of the bare step's rate: {share}. "
    text += "The demo (motion set, pre-training, fine-tuning, test): "
    if "total_seconds" in demo:
        text += f"{demo['total_seconds']:.0f} s, {demo['top1']:.1f} % of {demo['evaluated']}."
    else:
        text += f"{NONE}."
    found = cases.get("mae/base/32+compile", {}).get("candidates", {})
    if {"ours", "ours+graph"} <= found.keys():
        eager, graph = (1e3 * found[name]["seconds"]["median"] for name in ("ours", "ours+graph"))
        text += (
            f" A CUDA graph of the whole pre-training step of base takes {graph:.0f} ms instead of "
            f"{eager:.0f} ms at 32 clips: the host launches kernels more slowly than the GPU runs "
            "them. The trainer with `train.cuda_graph=true`: "
        )
        engine = cases.get("engine/base_mae", {})
        if "graph" in engine:
            text += f"{engine['graph']:.0f} clips/s instead of {engine['bytes']:.0f}."
        else:
            text += f"{NONE}."
    return text


def _eager(cases: Result) -> str:
    """Return the ratios of single clips without a graph."""
    found = []
    for size in ("base", "large"):
        rates = {
            name: numbers["clips_per_second"]
            for name, numbers in cases.get(f"inference/{size}/1", {}).get("candidates", {}).items()
        }
        if {"ours", *RIVALS} <= rates.keys():
            theirs, optim = (rates["ours"] / rates[rival] for rival in RIVALS)
            found.append(f"{theirs:.2f} × and {optim:.2f} × ({size})")
    return f"Without a graph, the ratios at one clip are {', '.join(found)}. " if found else ""


def _paragraph(text: str) -> str:
    return fill(text, WIDTH, break_on_hyphens=False, break_long_words=False)


if __name__ == "__main__":
    main()
