"""Compare exported programs with the model: file size, time of a batch, and accuracy of int8.

    python benchmarks/exported.py --run runs/motion_hiera_micro    # int8 accuracy on its data.val
    python benchmarks/exported.py --model hiera_base_16x224 --rounds 5    # size and speed alone

Writes results/exported.json, or exported_<model>.json with --model, whose weights are newly
initialised. Everything runs on the CPU with torch's number of threads.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from record import record
from speed_measure import ratios, summarise, time_in_turns

from hiera_video.export.program import load_program, write_int8
from hiera_video.workflows.export import export
from hiera_video.workflows.export_source import (
    ExportSource,
    export_source_from_run,
    export_source_from_weights,
)


def main() -> None:
    """Export three programs, time them and the model in turns, and record the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source_group = parser.add_mutually_exclusive_group(required=True)
    source_group.add_argument("--run", help="out_dir of a run")
    source_group.add_argument("--model", help="a model name; weights are newly initialised")
    parser.add_argument("--batch", type=int, default=1, help="clips of a batch")
    parser.add_argument("--rounds", type=int, default=20, help="number of timed runs of each")
    parser.add_argument("--out", type=Path, help="default: results/exported….json")
    arguments = parser.parse_args()
    name = arguments.model
    source = (
        export_source_from_run(arguments.run, "best")
        if arguments.run
        else export_source_from_weights(name, "none", "logits")
    )
    with tempfile.TemporaryDirectory() as folder:
        files, difference = export_all(source, Path(folder), accuracy=arguments.run is not None)
        runs = functions(source, files, arguments.batch)
        seconds = time_in_turns(runs, arguments.rounds, "wall", "cpu")
        sizes = {name: round(path.stat().st_size / 1e6, 3) for name, path in files.items()}
    result = {
        "what": f"seconds of a batch of {arguments.batch}; ratio: over the model's, by round",
        "command": " ".join(["python", *sys.argv]),
        "model": source.name,
        "threads": torch.get_num_threads(),
        "onnxruntime": version("onnxruntime"),
        "megabytes": sizes,
        "seconds": {name: summarise(values) for name, values in seconds.items()},
        "ratio": ratios(seconds, "model"),
        "difference": difference,
    }
    print(record("exported" if arguments.run else f"exported_{source.name}", result, arguments.out))


def export_all(
    source: ExportSource, folder: Path, *, accuracy: bool
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Export the three programs; return their files and differences from the model, by name."""
    files = {
        name: folder / f"{name}.{'pt2' if name == 'pt2' else 'onnx'}"
        for name in ("pt2", "onnx", "int8")
    }
    differences: dict[str, Any] = {
        name: export(source, files[name])["difference"] for name in ("pt2", "onnx")
    }
    if accuracy:
        differences["int8"] = export(source, files["int8"], int8=True)["int8"]
    else:
        write_int8(files["onnx"], files["int8"])
    return files, differences


def functions(
    source: ExportSource, files: dict[str, Path], batch: int
) -> dict[str, Callable[[], object]]:
    """Return functions that run the model and each program on the same clips, by name."""
    clips = torch.randn(batch, source.model.config.in_chans, *source.model.config.input_size)

    def model() -> object:
        with torch.inference_mode():
            return source.model(clips)

    return {
        "model": model,
        **{name: _program_function(path, clips) for name, path in files.items()},
    }


def _program_function(path: Path, clips: torch.Tensor) -> Callable[[], object]:
    if path.suffix == ".pt2":
        run = load_program(path)
        return lambda: run(clips)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"clips": clips.numpy()})


if __name__ == "__main__":
    main()
