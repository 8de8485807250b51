"""The results of the GPU check as text: a short table, and the section of docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Result = dict[str, Any]
FAILURES, PROFILED, LENGTH = 12, 8, 130
"""Failed tests and kernels in the short table, and characters of a line."""


def table(result: Result) -> str:
    """Return the short table, at most about 80 lines."""
    lines = [f"GPU check: {result['device']['name']}"]
    for name, case in result["cases"].items():
        lines.extend(line[:LENGTH] for line in _lines(name, case, result))
    return "\n".join(lines)


def _lines(name: str, case: Result, result: Result) -> Iterator[str]:
    if "error" in case:
        yield f"{name}: ERROR {case['error']['type']}: {_one_line(case['error']['message'])}"
    elif isinstance(case.get("skipped"), str):
        yield f"{name}: skipped: {case['skipped']}"
    elif name == "tests":
        counts = ", ".join(f"{case[key]} {key}" for key in ("passed", "failed", "skipped"))
        if case.get("not_run"):
            counts += f", {case['not_run']} not run"
        yield f"tests: {counts} in {case.get('took')} s, exit code {case.get('exit_code')}"
        for test, text in list(case.get("failures", {}).items())[:FAILURES]:
            yield f"  FAILED {test.rpartition('.')[2]}: {_one_line(' '.join(text[:2]))}"
    elif "candidates" in case:
        ceiling = ceiling_tflops(result)
        yield f"{name}:"
        for row in rows(case, ceiling):
            yield "  " + row
    elif "kernels" in case:
        yield f"{name}: {case['device_ms']:.1f} ms on the device"
        for milliseconds, count, kernel in case["kernels"][:PROFILED]:
            yield f"  {milliseconds:8.2f} ms {count:5} × {kernel}"
    else:
        shown = {key: value for key, value in case.items() if key not in ("rows", "took", "lines")}
        yield f"{name}: " + _one_line(", ".join(f"{key} {value}" for key, value in shown.items()))


def rows(case: Result, ceiling: float | None) -> Iterator[str]:
    """Yield a line for each candidate: time, rate, share of the ceiling, memory, ratio."""
    first: float | None = None
    for name, numbers in case["candidates"].items():
        seconds = numbers["seconds"]["median"]
        first = first or seconds
        mfu = model_share(case, numbers, ceiling)
        share = "" if mfu is None else f"  MFU {mfu:5.1%}"
        memory = numbers["peak_gb"]
        yield (
            f"{name:28} {1e3 * seconds:9.2f} ms {numbers['clips_per_second']:9.1f} clips/s{share}"
            f"{'' if memory is None else f'  {memory:6.2f} GB'}  {seconds / first:5.2f} ×"
            f"  difference {numbers['difference']:.0e}"
        )
    for name, error in case["errors"].items():
        text = error if isinstance(error, str) else f"{error['type']}: {error['message']}"
        yield f"{name:28} ERROR {_one_line(text)}"


def model_share(case: Result, numbers: Result, ceiling: float | None) -> float | None:
    """Return the model's arithmetic over what the measured matrix product does in that time."""
    if ceiling is None:
        return None
    return float(case["flops_per_clip"] * numbers["clips_per_second"] / 1e12 / ceiling)


def ceiling_tflops(result: Result) -> float | None:
    """Return the rate of the measured matrix product; None if it was not measured."""
    rate = result["cases"].get("ceilings", {}).get("matmul_tflops")
    return None if rate is None else float(rate)


def _one_line(text: str) -> str:
    return " ".join(text.split())
