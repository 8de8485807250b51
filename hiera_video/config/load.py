"""Load a YAML file and `key=value` overrides into a frozen, checked `Config`.

    config = load_config("configs/k400_hiera_b.yaml", ["train.batch_size=8", "optim.lr=4e-4"])

A file may extend others, given relative to itself: `_base_: k400_hiera_b.yaml`, or a list of which
later files override earlier ones.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from io import StringIO
from pathlib import Path
from typing import Any, cast, get_type_hints

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hiera_video.config.catalogue import list_configs
from hiera_video.config.schema import Config
from hiera_video.errors import ConfigError
from hiera_video.utils.atomic_files import write_atomic

BASE = "_base_"
MAX_BASES = 100
"""Longest chain of files that extend each other."""
MAX_DEPTH = 30
"""Deepest nesting of a YAML file; a configuration has two levels."""
MAX_QUOTED = 120
"""Characters of an override that messages quote."""
MAX_MESSAGE = 400
"""Characters of a parser's message, which may quote a value."""
UNFILLED = "Value '$VALUE' of type '$VALUE_TYPE'"
"""Words of OmegaConf about an item of a list, whose value it does not fill in."""
NO_LIST = r"Invalid value assigned: (\w+) is not a \w+, .*"
WRONG_LENGTH = r"TupleConfig length (\d+) does not match type hint length (\d+)"
"""Its words about a list, in its own terms."""
LARGEST_NUMBER = 2**63 - 1
YAML_SUFFIXES = (".yaml", ".yml")
PARSE_ERRORS = (
    yaml.YAMLError,
    OmegaConfBaseException,
    ValueError,  # not UTF-8, or a number of thousands of digits
    OverflowError,
    RecursionError,
    AttributeError,  # PyYAML's, for `!!timestamp` of other text
)
NULLS = ("", "~", "null", "Null", "NULL")
"""YAML's spellings of an unset value."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Load a configuration.

    Args:
        path: YAML file, which may extend others with `_base_`; or the name of one that comes with
            the package, such as `k400_hiera_b` (see `list_configs`).
        overrides: `key=value` strings such as `optim.lr=4e-4`, applied in order. Values are YAML,
            except that text (names, paths) is taken literally unless it is quoted.

    Returns:
        The configuration, checked and frozen.

    Raises:
        ConfigError: A file is missing or not valid YAML, a key is unknown, or a value is invalid.
            The message names the file or the override.
    """
    layers = [*_read_layers(find_config(path)), *map(_parse_override, overrides)]
    return _merge(OmegaConf.structured(Config), layers, str(path))


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """Return a configuration with `key=value` overrides, which are checked as by `load_config`."""
    layers = list(map(_parse_override, overrides))
    return _merge(OmegaConf.structured(config), layers, overrides[-1]) if layers else config


def _merge(merged: DictConfig, layers: Sequence[tuple[str, DictConfig]], path: str) -> Config:
    """Merge layers into `merged`, in order, and check the result.

    Args:
        merged: A structured configuration, which is changed.
        layers: The source of each layer, for messages, and its values.
        path: Source of the whole, for messages.
    """
    for _, layer in layers:
        _expand_auto(layer)
    OmegaConf.set_readonly(merged, False)
    for source, layer in layers:
        _check_keys(layer, source)
        try:
            merged = cast(DictConfig, OmegaConf.unsafe_merge(merged, layer))
        except (*PARSE_ERRORS, TypeError) as error:  # a mapping where a list belongs
            raise ConfigError(f"{source}: {_one_line(error)}") from error
    if OmegaConf.is_missing(merged, "model") or OmegaConf.is_missing(merged.model, "name"):
        raise ConfigError(f"{path}: model.name is not set; choose one, such as hiera_base_16x224")
    _check_numbers(OmegaConf.to_container(merged), "")
    try:
        return cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {_one_line(error)}") from error


def find_config(path: str | Path) -> Path:
    """Return the file that `--cfg` names: a file, or a configuration of the package."""
    file = Path(path)
    name = file.with_suffix("").name if file.suffix in YAML_SUFFIXES else file.name
    if file.exists() or name not in list_configs():
        return file
    if file.parent != Path():
        raise ConfigError(
            f"{path}: no such configuration file; --cfg {name} is the one that comes with the "
            f"package, `hiera-video configs --copy {name}` writes it into a file to edit"
        )
    return list_configs()[name]


def find_base(name: str, beside: Path) -> Path:
    """Return the package's configuration of a base that is not beside the file that names it."""
    return list_configs().get(Path(name).stem, beside) if Path(name).parent == Path() else beside


def run_config_file(run: str | Path) -> Path:
    """Return the configuration file of a run.

    Raises:
        ConfigError: `run` is not the folder of a run.
    """
    file = Path(run) / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"--run {run}: contains no config.yaml; give the out_dir of a run")
    return file


def save_config(config: Config, path: Path) -> None:
    """Write `config` atomically as YAML that `load_config` reads back."""
    write_atomic(path, OmegaConf.to_yaml(OmegaConf.structured(config)))


def flatten_config(config: Config) -> dict[str, Any]:
    """Return all values by dotted key: `{"optim.lr": 0.0008, …}`."""

    def flatten(section: object, prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for item in fields(cast(Any, section)):
            key, value = prefix + item.name, getattr(section, item.name)
            found |= flatten(value, f"{key}.") if is_dataclass(value) else {key: value}
        return found

    return flatten(config, "")


def suggest_key(key: str) -> str:
    """Return a hint for an unknown key.

    The hint is the same name in another section, else a similar name in the same section, else a
    similar key, else the valid keys.
    """
    known = list(_key_types())
    section, _, name = key.rpartition(".")
    siblings = [item for item in known if item.rpartition(".")[0] == section]
    sibling_names = [item.rpartition(".")[2] for item in siblings]
    near = [item for item in known if item.rpartition(".")[2] == name]
    similar = difflib.get_close_matches(name, sibling_names, n=1, cutoff=0.6)
    near += [f"{section}.{item}" if section else item for item in similar]
    near += difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if near:
        return f"did you mean '{near[0]}'?"
    if siblings and section:
        return f"valid keys there: {', '.join(siblings)}"
    sections = f"sections: {', '.join(item for item in known if '.' not in item)}"
    return f"{sections}; PySlowFast's keys: docs/migration.md" if key.isupper() else sections


def _read_layers(path: Path) -> list[tuple[str, DictConfig]]:
    """Read a file's bases and then the file itself, each with its name for messages.

    Each file is read once. A base that is reached several times stands where it is reached last:
    there it would override its own earlier values, so the result is the same.
    """
    contents: dict[Path, tuple[DictConfig, list[str]]] = {}
    backwards: list[tuple[str, DictConfig]] = []

    def visit(path: Path, chain: tuple[Path, ...]) -> None:
        path = path.resolve()
        if path in chain:
            names = " → ".join(item.name for item in (*chain, path))
            raise ConfigError(f"{path}: circular {BASE} ({names}); remove one of them")
        if path in contents:
            return
        if len(chain) >= MAX_BASES:
            raise ConfigError(
                f"{path}: more than {MAX_BASES} files extend each other with {BASE}; merge some"
            )
        contents[path] = _read_file(path, chain)
        layer, bases = contents[path]
        backwards.append((str(path), layer))
        for name in reversed(bases):
            beside = path.parent / name
            # a copy of one that comes with the package extends its base there
            visit(beside if beside.exists() else find_base(name, beside), (*chain, path))

    visit(path, ())
    return backwards[::-1]


def _read_file(path: Path, chain: tuple[Path, ...]) -> tuple[DictConfig, list[str]]:
    """Return a file's own keys and the names of its bases; `chain` are the files that led to it."""
    origin = f" (named as {BASE} in {chain[-1]})" if chain else ""
    if not path.is_file():
        known = ", ".join(sorted(item.name for item in path.parent.glob("[!.]*.yaml"))) or "none"
        near = difflib.get_close_matches(path.stem, list_configs(), n=1)
        hint = (
            f"did you mean {near[0]}, which comes with the package?"
            if near
            else "`hiera-video configs` lists those that come with the package"
        )
        raise ConfigError(
            f"{path}: no such configuration file{origin}; *.yaml files in that folder: {known}; "
            f"{hint}"
        )
    if chain and path.suffix not in YAML_SUFFIXES:
        raise ConfigError(
            f"{path}: is not a YAML file{origin}; {BASE} takes files that end in "
            f"{' or '.join(YAML_SUFFIXES)}"
        )
    layer = _read_yaml(path)
    bases = layer.pop(BASE, [])
    names = [bases] if isinstance(bases, str) else bases
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"{path}: {BASE}: {bases}: must be a file name or a list of them, such as "
            "k400_hiera_b.yaml"
        )
    return layer, list(names)


def _read_yaml(path: Path) -> DictConfig:
    try:
        text = path.read_text(encoding="utf-8")
        _check_depth(text)
        layer = OmegaConf.load(StringIO(text))
    except PARSE_ERRORS as error:
        raise ConfigError(f"{path}: not valid YAML: {_one_line(error)}") from error
    except OSError as error:  # unreadable; OmegaConf raises it for a file with one number, too
        raise ConfigError(
            f"{path}: cannot be read as `section: key: value` lines: {_one_line(error)}"
        ) from error
    if not isinstance(layer, DictConfig) or not layer:
        raise ConfigError(
            f"{path}: must contain `section: key: value` lines, but is empty or a single value"
        )
    return layer


def _check_depth(text: str) -> None:
    """Refuse YAML that is so deep that building its values would overflow the C stack."""
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise RecursionError


def _parse_override(text: str) -> tuple[str, DictConfig]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"{_quote(text)}: an override is written key=value, like optim.lr=4e-4")
    kind = _key_types().get(key)
    if value == MISSING:  # OmegaConf would leave the key as it was
        raise ConfigError(f"{_quote(text)}: has no value; write one after the =")
    if "tuple" in str(kind):
        value = _bracket(value.strip())
    try:
        is_text = kind in (str, str | None)
        if not is_text or value in NULLS or _is_quoted(value):
            _check_depth(value)
            return _quote(text), OmegaConf.from_dotlist([f"{key}={value}"])
        # literally: as YAML, 2024_10_05 would be a number and `#3` a comment
        layer = OmegaConf.create()
        OmegaConf.update(layer, key, value)
        return _quote(text), layer
    except PARSE_ERRORS as error:
        raise ConfigError(f"{_quote(text)}: {_one_line(error)}") from error


def _bracket(value: str) -> str:
    """Return a list without brackets, as `0.9,0.95` or `(0.9,0.95)`, with them."""
    if value in NULLS or value[0] in "[{$'\"":
        return value
    return f"[{value[1:-1] if value[0] == '(' and value[-1] == ')' else value}]"


def _quote(text: str) -> str:
    return f"'{text}'" if len(text) <= MAX_QUOTED else f"'{text[:MAX_QUOTED]}…'"


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""


def _expand_auto(layer: DictConfig) -> None:
    """Replace `train.batch_size=auto` and `train.accumulate=auto` by `train.fit_memory=true`.

    The batch size stays that of the layers below. A number for `train.accumulate` in a later layer
    turns `fit_memory` off again.
    """
    train = layer._get_node("train")
    if not isinstance(train, DictConfig):
        return
    # unresolved: the target of a `${…}` may be in another layer
    written = cast("dict[str, Any]", OmegaConf.to_container(train))
    for key in ("batch_size", "accumulate"):
        if written.get(key) == "auto":
            del train[key]
            train["fit_memory"] = True
        elif key == "accumulate" and key in written and "fit_memory" not in train:
            train["fit_memory"] = False


def _key_types(section: type = Config, prefix: str = "") -> dict[str, Any]:
    """Return the type of every key, sections included."""
    types: dict[str, Any] = {}
    for name, kind in get_type_hints(section).items():
        types[prefix + name] = kind
        if is_dataclass(kind):
            types |= _key_types(cast(type, kind), f"{prefix}{name}.")
    return types


def _check_keys(layer: DictConfig, source: str) -> None:
    """Refuse unknown keys before the merge, so that the message can suggest a valid one."""
    types = _key_types()

    def check(node: DictConfig, prefix: str) -> None:
        for name in map(str, node):
            key = f"{prefix}{name}"
            if key not in types:
                raise ConfigError(f"{source}: unknown key '{key}'; {suggest_key(key)}")
            if is_dataclass(types[key]):
                section = node._get_node(name)
                if not isinstance(section, DictConfig) or section._is_none():
                    example = next(item for item in types if item.startswith(f"{key}."))
                    raise ConfigError(
                        f"{source}: '{key}' is a section; write its keys below it, like {example}=…"
                    )
                check(section, f"{key}.")

    check(layer, "")


def _check_numbers(value: object, key: str) -> None:
    """Refuse whole numbers beyond 64 bits, which no computation can use."""
    if isinstance(value, dict):
        for name, item in value.items():
            _check_numbers(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            _check_numbers(item, key)
    elif isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        raise ConfigError(
            f"{key}: is a whole number of {value.bit_length()} bits; must be below 2^63"
        )


def _one_line(error: Exception) -> str:
    """Return a message of OmegaConf or YAML without line breaks, with the key it is about."""
    too_deep = "exceeded maximum nesting depth"  # PyYAML 6.0.4's own limit
    if isinstance(error, RecursionError) or too_deep in str(error):
        return "is nested too deeply; write `section: key: value` lines"
    if "integer string conversion" in str(error):
        return "contains a number of too many digits; shorten it"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = "; ".join(
        line for line in lines if not line.startswith(("full_key", "object_type", "reference_type"))
    )
    text = re.sub(NO_LIST, r"must be a list, not \1", text.replace(UNFILLED, "a value"))
    text = re.sub(WRONG_LENGTH, r"must have \2 values, not \1", text)
    key = getattr(error, "full_key", None)
    if len(text) > MAX_MESSAGE:
        text = text[:MAX_MESSAGE] + "…"
    return f"{key}: {text}" if key and str(key) not in text else text
