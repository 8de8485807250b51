"""Weights from files, run folders, the hub and the authors' server into models, and out again.

Nothing here ever unpickles objects: torch files are read with `weights_only=True`, and there is no other way."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file

from hiera_video.errors import CheckpointError
from hiera_video.models.hiera import Hiera, HieraEncoder
from hiera_video.models.layout import HieraConfig
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import MaeConfig
from hiera_video.models.weights.convert import (
    Inflation,
    LoadReport,
    State,
    copy_into,
    fit,
    inflate_image_weights,
    unwrap,
)
from hiera_video.models.weights.published import PUBLISHED, checkpoint_tags
from hiera_video.models.weights.save import DECODER_KEYS, save_pretrained
from hiera_video.utils.hashing import file_sha256

__all__ = [
    "LoadReport",
    "Weights",
    "checkpoint_of",
    "from_pretrained",
    "inflate_image_weights",
    "load_pretrained",
    "read_weights",
    "save_pretrained",
]

logger = logging.getLogger(__name__)

_FILES = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin", "model.pth")
_INDEX = "model.safetensors.index.json"
"""Which part holds which tensor, of weights in several files."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A state dict and what stood beside it."""

    source: str
    """Where it was found, for messages."""
    state: State
    """Tensors by name, without wrappers' prefixes."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Constructor arguments (`config.json`), empty where there were none."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """What `save_pretrained` knows beyond that (`hiera_video.json`), empty where there was none."""
    class_names: tuple[str, ...] | None = None
    """Class names, where there were any."""
    multi_label: bool | None = None
    """Several labels a video in the training, where that is known."""

    @property
    def num_classes(self) -> int | None:
        """Outputs of the head, None where there is no head."""
        head = self.state.get("head.projection.weight")
        return None if head is None else len(head)


def load_pretrained(
    model: HieraEncoder,
    source: str | Path | Weights,
    *,
    name: str = "",
    inflation: Inflation = "center",
) -> LoadReport:
    """Load weights into `model`, in place, and log what came, what is fresh and what was left.

    source: whatever `read_weights` takes. name: the model's name, under which tags are looked up. inflation: how an
    image model's weights become a video model's (`inflate_image_weights`). Raises `CheckpointError`."""
    weights = source if isinstance(source, Weights) else read_weights(source, name)
    _refuse_other_heads(weights, model)
    chosen, report = fit(weights.state, model, weights.source, inflation)
    copy_into(model, chosen)
    logger.info("%s: loaded %d tensors; %s", report.source, len(report.loaded), _in_words(report))
    return report


def from_pretrained(source: str | Path) -> Hiera | MaskedAutoencoderHiera:
    """The model that `save_pretrained` wrote (or a hub folder with `config.json`), rebuilt from the folder alone, in
    evaluation mode. Raises `CheckpointError`."""
    weights = read_weights(source)
    if not weights.config:
        raise CheckpointError(
            f"{source}: has no config.json; build the model with create_model(…, pretrained=…) instead"
        )
    arguments = {
        key: value
        for key, value in weights.config.items()
        if key in HieraConfig.__dataclass_fields__
    }
    is_autoencoder = "mask_token" in weights.state
    init = weights.extras.get("init", "xavier" if is_autoencoder else "trunc_normal")
    decoder = {key: value for key, value in weights.config.items() if key in DECODER_KEYS}
    try:
        config = HieraConfig(**arguments, init=init)
        mae = MaeConfig(**{**decoder, **(weights.extras.get("mae") or {})})
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source}: its config.json is not of this package or hiera-transformer ({error}); weights of Hiera's names "
            "load with create_model(…, pretrained=…)"
        ) from error
    model = MaskedAutoencoderHiera(config, mae) if is_autoencoder else Hiera(config)
    load_pretrained(model, weights)
    return model.eval()


def _in_words(report: LoadReport) -> str:
    parts = [*report.notes]
    for label, names in (("fresh", report.fresh), ("dropped", report.dropped)):
        groups = sorted({name.split(".")[0] for name in names})
        if groups:
            parts.append(f"{label}: {', '.join(groups)}")
    return "; ".join(parts) or "nothing fresh, nothing dropped"


def _refuse_other_heads(weights: Weights, model: HieraEncoder) -> None:
    """Attention heads leave no trace in shapes; a wrong count would load in silence and compute something else."""
    pairs = [("num_heads", model.config.num_heads)]
    if (
        isinstance(model, MaskedAutoencoderHiera)
        and "mask_token" in weights.state
        and not _is_image(weights, model)
    ):
        pairs.append(("decoder_num_heads", model.mae.decoder_num_heads))
    for key, here in pairs:
        there = weights.config.get(key)
        if there is not None and there != here:
            raise CheckpointError(
                f"{weights.source}: was made with {key}={there}, the model has {here}; make them equal"
            )


def _is_image(weights: Weights, model: HieraEncoder) -> bool:
    """Whether an image model's weights go into a video model; its decoder, and so that one's heads, stay behind."""
    patches = weights.state.get("patch_embed.proj.weight")
    return patches is not None and patches.ndim < model.patch_embed.proj.weight.ndim


def read_weights(source: str | Path, name: str = "") -> Weights:
    """Read weights without a model.

    source: a file (.safetensors, or a torch file), a folder (ours, a hub download, a checkpoint, or a run: see
    `checkpoint_of`), `hf-hub:owner/name[@revision]`, a tag of the model `name` (`mae_k400`), or any model's
    (`hiera_base_224.mae_in1k`). Raises `CheckpointError`."""
    text = str(source)
    if text.startswith("hf-hub:"):
        return _read_folder(_hub_folder(text.removeprefix("hf-hub:")), text)
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, text)
    if path.is_file():
        return Weights(source=text, state=unwrap(_read_file(path), text))
    address = checkpoint_tags(name).get(text)
    if address is None:
        known = ", ".join(PUBLISHED.get(name, {})) or "none"
        near = get_close_matches(text, checkpoint_tags(name), n=3)
        hint = f"did you mean the tag {' or '.join(near)}?" if near else f"known tags: {known}"
        raise CheckpointError(
            f"{text}: no such file or folder, and no tag{f' of {name}' if name else ''}; {hint}; hf-hub:owner/name also works"
        )
    return Weights(source=text, state=unwrap(_read_file(_downloaded(address)), text))


def checkpoint_of(run: Path, which: Literal["best", "last"] | None = None) -> Path:
    """The folder of a checkpoint of the run in folder `run`.

    Where nobody says `which`: the best (of masked pre-training, that of the lowest held-out loss), or the last where the run
    was never validated. Raises `CheckpointError` where there is none."""
    checkpoints = run / "checkpoints"
    found = [
        checkpoints / name
        for name in ([which] if which else ["best", "last"])
        if (checkpoints / name).is_dir()
    ]
    if not found:
        wanted = f"the run has no {f'{which!r} ' if which else ''}checkpoint yet"
        raise CheckpointError(
            f"{run}: {wanted if run.is_dir() else 'no such folder of a run'}; it saves 'last', and with a data.val 'best': let "
            "it train until then, or name another run or file"
        )
    return found[0]


def _read_folder(folder: Path, source: str) -> Weights:
    if (folder / "checkpoints").is_dir():
        folder = checkpoint_of(folder)
    files = _files_of(folder, source)
    config, ours, meta = (
        _read_json(folder / f"{stem}.json") for stem in ("config", "hiera_video", "meta")
    )
    names = ours.get("class_names") or meta.get("class_names")
    for file in files:
        recorded = (
            meta.get("files", {}).get(file.name, {}).get("sha256")
        )  # a checkpoint of a run knows what was written
        if recorded is not None and recorded != file_sha256(file):
            raise CheckpointError(
                f"{file}: damaged (its sha256 is not the recorded one); take another checkpoint of the run"
            )
    contents = [_read_file(file) for file in files]
    return Weights(
        source=source,
        state=unwrap(contents[0] if len(files) == 1 else reduce(or_, contents), source),
        config=config,
        extras=ours,
        class_names=tuple(names) if names else None,
        multi_label=meta.get("multi_label"),
    )


def _files_of(folder: Path, source: str) -> list[Path]:
    """The file of the weights, or the parts that an index beside them names."""
    if (folder / _INDEX).is_file():
        names = sorted(
            {str(name) for name in dict(_read_json(folder / _INDEX).get("weight_map", {})).values()}
        )
        missing = [
            name for name in names if Path(name).name != name or not (folder / name).is_file()
        ]
        if missing or not names:
            raise CheckpointError(
                f"{folder / _INDEX}: names {', '.join(missing) or 'no parts'}, not there; fetch or copy the whole folder"
            )
        return [folder / name for name in names]
    file = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if file is None:
        raise CheckpointError(
            f"{source}: holds none of {', '.join(_FILES)}, and no checkpoints/ of a run"
        )
    return [file]


def _read_json(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(contents, dict):
        raise CheckpointError(f"{path}: holds a {type(contents).__name__} instead of an object")
    return contents


def _read_file(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # safetensors, zip and the restricted unpickler each raise their own kinds
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no details"
        raise CheckpointError(
            f"{path}: cannot be read ({type(error).__name__}: {first[:160]}); it is damaged, or holds more than tensors, "
            "numbers and strings, which is never loaded; save its state dict alone, best as .safetensors"
        ) from error


def _hub_folder(repository: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"hf-hub:{repository}: needs huggingface_hub; pip install 'hiera-video[hub]'"
        ) from error
    name, _, revision = repository.partition("@")
    try:
        patterns = ["*.json", *_FILES, "model-*.safetensors"]
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except Exception as error:  # network, HTTP and validation errors of three libraries
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no details"
        raise CheckpointError(
            f"hf-hub:{repository}: cannot be fetched ({type(error).__name__}: {first[:160]}); download "
            f"https://huggingface.co/{name} elsewhere and give the folder's path"
        ) from error


def _downloaded(address: str) -> Path:
    """The file behind a known address, in torch.hub's cache; fetched where it is not there. Its sha256 is recorded
    beside it when it is first seen, and has to be the same ever after (the authors publish none)."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / address.rsplit("/", 1)[1]
    if not path.is_file():
        logger.info("downloading %s to %s", address, path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(address, str(path))
        except OSError as error:  # urllib's errors are OSErrors too
            raise CheckpointError(
                f"{address}: cannot be downloaded ({error}); fetch it on another machine and put it at {path}"
            ) from error
    record = path.with_name(path.name + ".sha256")
    digest = file_sha256(path)
    if not record.is_file():
        record.write_text(digest + "\n")
    elif record.read_text().strip() != digest:
        raise CheckpointError(
            f"{path}: has changed since its first download; delete it and {record.name} to fetch it anew"
        )
    return path
