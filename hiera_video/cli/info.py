"""Describe this installation (for a bug report), a model, a run, a configuration or weights.

hiera-video info                        # versions, devices, decoders
hiera-video info hiera_base_16x224      # stages, parameters, multiply-accumulates, memory of a step
hiera-video info runs/x                 # the model of a run
hiera-video info k400_hiera_b           # the model of a configuration
hiera-video info model.pth              # the model that a file of weights belongs to
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.arguments import command_parser
from hiera_video.config.load import find_config, load_config
from hiera_video.errors import ConfigError
from hiera_video.models.registry import default_mae, is_mae, list_names

WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pyth", ".tar")
"""Suffixes of files of weights."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("info", __doc__)
    parser.add_argument(
        "what", nargs="*", metavar="MODEL|RUN|CFG|WEIGHTS", help="model, run or file"
    )
    parser.add_argument("--run", metavar="DIR", action="append", default=[], help="a run")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print facts of the installation, or a table for each argument."""
    arguments = make_parser().parse_intermixed_args(argv)
    wanted = [*arguments.what, *arguments.run]
    for text in wanted:
        _check(text)
    from hiera_video.workflows import info

    if not wanted:
        print(info.describe_installation())
    for text in wanted:
        folder = Path(text)
        if text in list_names():
            mae = default_mae(text) if is_mae(text) else None
            print(info.describe_model(info.ModelRequest(name=text, mae=mae)))
        elif folder.is_dir():
            config = load_config(folder / "config.yaml")
            line, num_classes = info.describe_run(folder, config)
            print(f"{line}\n{info.describe_model(info.ModelRequest.of(config, num_classes))}")
        elif folder.suffix in WEIGHTS:
            print(info.describe_weights(text))
        else:
            config = load_config(text)
            request = info.ModelRequest.of(config, config.model.num_classes)
            print(info.describe_model(request))
    return 0


def _check(text: str) -> None:
    """Refuse what is no model, run or configuration, before torch is imported."""
    folder = Path(text)
    if text in list_names() or (folder / "config.yaml").is_file() or find_config(text).is_file():
        return
    raise ConfigError(
        f"{text}: no model, run or configuration; hv.list_models() and `hiera-video configs` list "
        "the first and the last, a run is a folder with config.yaml"
    )
