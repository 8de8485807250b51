"""YAML file and `key=value` overrides → a frozen, checked `Config`, through OmegaConf's structured configs.

    config = load_config("configs/k400_hiera_b.yaml", ["train.batch_size=8", "optim.lr_for_batch=256"])

A file may name others that it builds on, relative to itself: `_base_: k400_hiera_b.yaml` or a list; later ones win.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hiera_video.config.schema import Config
from hiera_video.errors import ConfigError
from hiera_video.utils.atomic_files import write_atomic

BASE = "_base_"
NULLS = ("", "~", "null", "Null", "NULL")
"""What YAML reads as unset."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read `path`, its `_base_` files and `overrides`. Raises `ConfigError` with the file or the override named."""
    layers = [*_read(Path(path), seen=()), *(_parse_override(text) for text in overrides)]
    for _, layer in layers:
        _spell_out_auto(layer)
    merged = OmegaConf.structured(Config)
    OmegaConf.set_readonly(merged, False)
    for source, layer in layers:
        _check_keys(layer, source)
        try:
            merged = cast(DictConfig, OmegaConf.unsafe_merge(merged, layer))
        except OmegaConfBaseException as error:
            raise ConfigError(f"{source}: {_one_line(error)}") from error
    if OmegaConf.is_missing(merged, "model") or OmegaConf.is_missing(merged.model, "name"):
        raise ConfigError(f"{path}: model.name is not set; choose one, such as hiera_base_16x224")
    try:
        return cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {_one_line(error)}") from error


def save_config(config: Config, path: Path) -> None:
    """Write every key of `config` as YAML that `load_config` reads back, whole or not at all."""
    write_atomic(path, OmegaConf.to_yaml(OmegaConf.structured(config)))


def flatten_config(config: Config) -> dict[str, Any]:
    """`{"optim.lr": 0.0008, …}`: every key with its value."""

    def walk(node: object, prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for item in fields(cast(Any, node)):
            value = getattr(node, item.name)
            found |= (
                walk(value, f"{prefix}{item.name}.")
                if is_dataclass(value)
                else {prefix + item.name: value}
            )
        return found

    return walk(config, "")


def _read(path: Path, seen: tuple[Path, ...]) -> list[tuple[str, DictConfig]]:
    """The layers of one file: those of its bases, then its own."""
    path = path.resolve()
    if path in seen:
        chain = " → ".join(item.name for item in (*seen, path))
        raise ConfigError(f"{path}: {BASE} goes in a circle ({chain}); remove one of them")
    if not path.is_file():
        origin = f" (named as {BASE} in {seen[-1]})" if seen else ""
        known = ", ".join(sorted(item.name for item in path.parent.glob("*.yaml"))) or "none"
        raise ConfigError(
            f"{path}: no such configuration file{origin}; *.yaml files in that folder: {known}"
        )
    try:
        layer = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {_one_line(error)}") from error
    except OSError as error:  # OmegaConf's word for a file that holds one number, and the system's for one it keeps shut
        raise ConfigError(
            f"{path}: cannot be read as `section: key: value` lines: {_one_line(error)}"
        ) from error
    if not isinstance(layer, DictConfig) or not layer:
        raise ConfigError(
            f"{path}: must hold `section: key: value` lines, but is empty or a bare value"
        )
    bases = layer.pop(BASE, [])
    names = [bases] if isinstance(bases, str) else bases
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"{path}: {BASE}: {bases}: must be a file's name or a list of them, such as k400_hiera_b.yaml"
        )
    found = [item for name in names for item in _read(path.parent / name, (*seen, path))]
    return [*found, (str(path), layer)]


def _parse_override(text: str) -> tuple[str, DictConfig]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{text}': an override is written key=value, like optim.lr=4e-4")
    try:
        if key not in _text_keys(Config) or value in NULLS or _is_quoted(value):
            return f"'{text}'", OmegaConf.from_dotlist([text])
        layer = OmegaConf.create()
        OmegaConf.update(
            layer, key, value
        )  # as it stands: in YAML 2024_10_05 is a number, and `#3` a comment
        return f"'{text}'", layer
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"'{text}': {_one_line(error)}") from error


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""


def _spell_out_auto(layer: DictConfig) -> None:
    """`train.batch_size=auto` and `train.accumulate=auto` mean `train.fit_memory=true`, the batch staying what layers below
    say; a number of parts in a layer above ends it."""
    train = layer._get_node("train")
    if not isinstance(train, DictConfig):
        return
    # as it stands: what `${…}` refers to may lie in another layer
    written = cast("dict[str, Any]", OmegaConf.to_container(train))
    for key in ("batch_size", "accumulate"):
        if written.get(key) == "auto":
            del train[key]
            train["fit_memory"] = True
        elif key == "accumulate" and key in written and "fit_memory" not in train:
            train["fit_memory"] = False


def _schema_keys(schema: type, prefix: str = "") -> dict[str, type | None]:
    """Every key of the configuration; sections map to their dataclass, plain values to None."""
    keys: dict[str, type | None] = {}
    for name, kind in get_type_hints(schema).items():
        section = kind if is_dataclass(kind) else None
        keys[prefix + name] = cast("type | None", section)
        if section is not None:
            keys |= _schema_keys(cast(type, section), f"{prefix}{name}.")
    return keys


def _text_keys(schema: type, prefix: str = "") -> set[str]:
    """The keys whose value is text: names, and paths."""
    keys: set[str] = set()
    for name, kind in get_type_hints(schema).items():
        if is_dataclass(kind):
            keys |= _text_keys(cast(type, kind), f"{prefix}{name}.")
        elif kind in (str, str | None):
            keys.add(prefix + name)
    return keys


def _check_keys(layer: DictConfig, source: str) -> None:
    """Refuse unknown keys before the merge, so that the answer can name the nearest valid one."""
    known = _schema_keys(Config)

    def walk(node: DictConfig, prefix: str) -> None:
        for name in map(str, node):
            key = f"{prefix}{name}"
            if key not in known:
                raise ConfigError(f"{source}: unknown key '{key}'; {suggest_key(key)}")
            if known[key] is not None:
                child = node._get_node(name)
                if not isinstance(child, DictConfig) or child._is_none():
                    raise ConfigError(
                        f"{source}: '{key}' is a section; write its keys below it, like {_example(key, known)}"
                    )
                walk(child, f"{key}.")

    walk(layer, "")


def suggest_key(key: str) -> str:
    """A hint for a key that does not exist: the same name elsewhere, else a similar name in the same section, else a similar
    key, else what there is."""
    known = list(_schema_keys(Config))
    section, _, leaf = key.rpartition(".")
    siblings = [item for item in known if item.rpartition(".")[0] == section]
    near = [item for item in known if item.rpartition(".")[2] == leaf]
    near += difflib.get_close_matches(
        leaf, [item.rpartition(".")[2] for item in siblings], n=1, cutoff=0.6
    )
    near += difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if near:
        return f"did you mean '{near[0] if near[0] in known else f'{section}.{near[0]}'}'?"
    if siblings and section:
        return f"valid keys there: {', '.join(siblings)}"
    return f"sections: {', '.join(item for item in known if '.' not in item)}"


def _example(section: str, known: dict[str, type | None]) -> str:
    return next(key for key in known if key.startswith(f"{section}.")) + "=…"


def _one_line(error: Exception) -> str:
    """OmegaConf's and YAML's messages span lines; the first says what is wrong, `full_key` where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = "; ".join(
        line for line in lines if not line.startswith(("full_key", "object_type", "reference_type"))
    )
    key = getattr(error, "full_key", None)
    return f"{key}: {text}" if key and str(key) not in text else text
