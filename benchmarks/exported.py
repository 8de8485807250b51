"""Exported programs against the model: size, seconds a batch in turns, and what int8 costs.

    python benchmarks/exported.py --run runs/motion_hiera_micro            # size, speed, and int8's loss on its data.val
    python benchmarks/exported.py --model hiera_base_16x224 --rounds 5     # fresh weights: size and speed alone

Writes results/exported.json, or exported_<model>.json for fresh weights. All run on the CPU with torch's number of threads.
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
from speed_measure import in_turns, ratios, spread

from hiera_video.export.program import load_program, write_int8
from hiera_video.workflows.export import export
from hiera_video.workflows.export_source import (
    ExportSource,
    export_source_from_run,
    export_source_from_weights,
)


def main() -> None:
    """Export three ways, let all take turns, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", help="out_dir of a finished run")
    what.add_argument("--model", help="a name of list_models, with fresh weights")
    parser.add_argument("--batch", type=int, default=1, help="clips at once")
    parser.add_argument("--rounds", type=int, default=20, help="turns that each takes")
    parser.add_argument("--out", type=Path, help="instead of results/…")
    arguments = parser.parse_args()
    name = arguments.model
    source = (
        export_source_from_run(arguments.run, "best")
        if arguments.run
        else export_source_from_weights(name, "none", "logits")
    )
    with tempfile.TemporaryDirectory() as folder:
        files, loss = exported(source, Path(folder), with_loss=arguments.run is not None)
        seconds = in_turns(
            contestants(source, files, arguments.batch), arguments.rounds, "wall", "cpu"
        )
        sizes = {name: round(path.stat().st_size / 1e6, 3) for name, path in files.items()}
    result = {
        "what": f"seconds for a batch of {arguments.batch}; ratio: over the model's, round by round",
        "command": " ".join(["python", *sys.argv]),
        "model": source.name,
        "threads": torch.get_num_threads(),
        "onnxruntime": version("onnxruntime"),
        "megabytes": sizes,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratio": ratios(seconds, "model"),
        "difference": loss,
    }
    print(record("exported" if arguments.run else f"exported_{source.name}", result, arguments.out))


def exported(
    source: ExportSource, folder: Path, *, with_loss: bool
) -> tuple[dict[str, Path], dict[str, Any]]:
    """The three programs by name, and how far their answers are from the model's."""
    files = {
        name: folder / f"{name}.{'pt2' if name == 'pt2' else 'onnx'}"
        for name in ("pt2", "onnx", "int8")
    }
    told: dict[str, Any] = {
        name: export(source, files[name])["difference"] for name in ("pt2", "onnx")
    }
    if with_loss:
        told["int8"] = export(source, files["int8"], int8=True)["int8"]
    else:
        write_int8(files["onnx"], files["int8"])
    return files, told


def contestants(
    source: ExportSource, files: dict[str, Path], batch: int
) -> dict[str, Callable[[], object]]:
    """The model and each program on the same clips."""
    clips = torch.randn(batch, source.model.config.in_chans, *source.model.config.input_size)

    def model() -> object:
        with torch.inference_mode():
            return source.model(clips)

    return {"model": model, **{name: _of(path, clips) for name, path in files.items()}}


def _of(path: Path, clips: torch.Tensor) -> Callable[[], object]:
    if path.suffix == ".pt2":
        run = load_program(path)
        return lambda: run(clips)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"clips": clips.numpy()})


if __name__ == "__main__":
    main()
