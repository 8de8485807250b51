"""Configuration files and overrides: their meaning, and the message of every error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hiera_video.config.load import flatten_config, load_config, override_config, save_config
from hiera_video.errors import HieraVideoError

from .conftest import CONFIGS, MOTION, refusal, write


def test_overrides_of_a_loaded_configuration() -> None:
    overrides = ["test.clips=7", "data.val=a=b.csv", "augment.mean=[0.4,0.5,0.6]"]
    config = load_config(MOTION)
    changed = override_config(config, overrides)
    assert changed == load_config(MOTION, overrides) and changed.test.clips == 7
    assert override_config(config, []) is config
    with pytest.raises(HieraVideoError, match=r"^test.clips=0: must be 1 or more$"):
        override_config(config, ["test.clips=0"])
    with pytest.raises(HieraVideoError, match=r"'test.clip=1': unknown key 'test.clip'; did you"):
        override_config(config, ["test.clip=1"])


def test_bases_are_read_first_and_overrides_last() -> None:
    config = load_config(
        CONFIGS / "k400_hiera_h.yaml", ["optim.weight_decay=0.1", "model.input_size=[16,256,256]"]
    )
    assert config.model.name == "hiera_huge_16x224"  # from the file itself
    assert config.model.head_dropout == 0.5  # from k400_hiera_l
    assert config.augment.mixup == 0.8  # from k400_hiera_b
    assert config.optim.weight_decay == 0.1
    assert config.input_size == (16, 256, 256)


def test_saved_config_reads_back_equal(tmp_path: Path) -> None:
    config = load_config(CONFIGS / "k400_hiera_l.yaml", ["seed=7"])
    save_config(config, tmp_path / "config.yaml")
    assert flatten_config(load_config(tmp_path / "config.yaml")) == flatten_config(config)


def test_a_full_disk_leaves_the_previous_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_config(load_config(MOTION, ["seed=7"]), tmp_path / "config.yaml")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        save_config(load_config(MOTION, ["seed=8"]), tmp_path / "config.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    assert load_config(tmp_path / "config.yaml").seed == 7


def test_a_value_may_interpolate_another(tmp_path: Path) -> None:
    assert (
        load_config(
            MOTION, ["train.accumulate=2", "train.batch_size=${train.accumulate}"]
        ).train.batch_size
        == 2
    )
    path = write(
        tmp_path, f"_base_: {MOTION}\ntrain: {{batch_size: 8, accumulate: '${{train.batch_size}}'}}"
    )
    assert load_config(path).train.accumulate == 8


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.lrr=1", "unknown key 'optim.lrr'; did you mean 'optim.lr'?"),
        ("data.trian=a", "unknown key 'data.trian'; did you mean 'data.train'?"),
        ("batch_size=8", "unknown key 'batch_size'; did you mean 'train.batch_size'?"),
        ("optim.zzzzz=1", "unknown key 'optim.zzzzz'; valid keys there: optim.name, optim.lr, "),
        ("zzzzz=1", "unknown key 'zzzzz'; sections: model, mae, data, "),
        ("SOLVER.BASE_LR=1", "seed; PySlowFast's keys: docs/migration.md"),
        ("data.train=???", "'data.train=???': has no value; write one after the ="),
        (
            "model.input_size=48",
            "model.input_size=[48]",
        ),
        ("optim.lr=abc", "Value 'abc' of type 'str' could not be converted to Float"),
        ("optim.lr=nan", "optim.lr=nan: must be above 0"),
        ("optim.lr=inf", "optim.lr=inf: must be above 0"),
        ("optim.min_lr=1", "optim.min_lr=1.0: must be between 0 and optim.lr=0.001"),
        ("optim.betas=[0.9,1.0]", "optim.betas=[0.9, 1.0]: must be in [0, 1)"),
        ("optim.betas=0.9", "'optim.betas=0.9': must have 2 values, not 1"),
        ("optim.momentum=1", "optim.momentum=1.0: must be in [0, 1)"),
        (
            "train.keep_every=0",
            "train.keep_every=0: must be 1 or more, or null to keep none",
        ),
        ("optim.weight_decay=-1", "optim.weight_decay=-1.0: must be 0 or more"),
        ("optim.layer_decay=0", "optim.layer_decay=0.0: must be in (0, 1]; 1 switches it off"),
        (
            "data.split=[0.2,0.1]",
            "data.split=[0.2, 0.1]: data.val=data/motion/val.csv is the validation list; set "
            "data.val=null or data.split=[0,0.1]",
        ),
        (
            "data.split=[0.5,0.5]",
            "data.split=[0.5, 0.5]: must be the shares of validation and test, 0 or more, together "
            "below 1",
        ),
        (
            "data.train_repeats=[1.5]",
            "'data.train_repeats=[1.5]': a value could not be converted to Integer",
        ),
        (
            "data.train_repeats=[1,2]",
            "data.train_repeats=[1, 2]: must be a number from 1 to 10,000 for data.train and for "
            "each of data.train_also, 1 in all",
        ),
        ("train.freeze=[blocks:5]", "train.freeze=['blocks:5']: hiera_micro_16x32 has 4 blocks"),
        ("optim.clip_grad=0", "optim.clip_grad=0.0: must be above 0, or null for no clipping"),
        ("optim.warmup_epochs=-1", "optim.warmup_epochs=-1.0: must be 0 or more"),
        ("optim.warmup_epochs=1000", "optim.warmup_epochs=1000.0 is longer than train.epochs="),
        ("train.task=sing", "Invalid value 'sing', expected one of ['classify'"),
        ("train.batch_size=0", "train.batch_size=0: must be 1 or more"),
        ("train.save_minutes=0", "train.save_minutes=0.0: must be above 0"),
        ("train.max_loss=0", "train.max_loss=0.0: must be above 0, or null for no limit"),
        ("train.max_loss=nan", "train.max_loss=nan: must be above 0, or null for no limit"),
        ("test.crops=0", "test.crops=0: must be 1 or more"),
        (
            "test.precision=half",
            "test.precision: Invalid value 'half', expected one of ['fp32', 'bf16', 'fp16']",
        ),
        ("test.max_broken=2", "test.max_broken=2.0: must be in [0, 1]"),
        ("data.workers=-1", "data.workers=-1: must be 0 or more"),
        ("data.max_broken=nan", "data.max_broken=nan: must be in [0, 1]"),
        ("data.deadline_seconds=nan", "data.deadline_seconds=nan: must be above 0"),
        ("data.separator=''", "data.separator='': must not be empty"),
        (
            "augment.scale=[0.5,2]",
            "augment.scale=[0.5, 2.0]: must be two shares, 0 < low <= high <= 1",
        ),
        ("augment.ratio=[2,1]", "augment.ratio=[2.0, 1.0]: must be two ratios, 0 < low <= high"),
        ("augment.flip=1.5", "augment.flip=1.5: is a probability, must be in [0, 1]"),
        ("augment.rand_augment=11", "augment.rand_augment=11.0: must be in [0, 10]"),
        (
            "augment.rand_augment_depth=0",
            "augment.rand_augment_depth=0: must be 1 or more",
        ),
        ("augment.color_jitter=2", "augment.color_jitter=2.0: must be in [0, 1]"),
        ("augment.mixup=-1", "augment.mixup=-1.0: must be 0 or more"),
        ("augment.cutmix=inf", "augment.cutmix=inf: must be 0 or more, and finite"),
        ("augment.label_smoothing=1", "augment.label_smoothing=1.0: must be in [0, 1)"),
        ("augment.std=[0,1,1]", "augment.std=[0.0, 1.0, 1.0]: must be above 0"),
        ("augment.mean={a: 1}", "'augment.mean={a: 1}': Cannot merge incompatible container types"),
        ("augment.mean=[nan,0,0]", "augment.mean=[nan, 0.0, 0.0]: must be finite numbers"),
        (
            "train.batch_size=${train.gone}",
            "train.batch_size: Interpolation key 'train.gone' not found",
        ),
        ("model.name=hiera_bose_16x224", "unknown model; did you mean hiera_base_16x224"),
        (
            "model.name=hiera_base_224",
            "model.name=hiera_base_224: is an image model; choose a video model such as",
        ),
        ("model.input_size=[16,225,225]", "the nearest that fit are "),
        (
            "model.input_size=[32,32,32]",
            "has 32 frames, clip.num_frames=16: must be equal; set clip.num_frames=32 or "
            "model.input_size=[16,32,32]",
        ),
        ("model.input_size=[16,32,64]", "clips are cropped to squares; make both sides equal"),
        ("model=3", "'model' is a section; write its keys below it, like model.name=…"),
        ("model", "an override is written key=value, like optim.lr=4e-4"),
        ("a=[", "'a=[': while parsing a flow node"),
    ],
)
def test_refused_override(override: str, words: str) -> None:
    assert words in refusal(MOTION, override)


def test_adapters_need_whole_weights_on_each_device() -> None:
    assert (
        "optim.lora_rank=2: needs train.parallel=ddp and a classifier (now fsdp, "
        "hiera_micro_16x32); set optim.lora_rank=null or change them"
    ) in refusal(MOTION, "optim.lora_rank=2", "train.parallel=fsdp")


def test_a_split_divides_one_list() -> None:
    words = "data.split=[0.1, 0.0]: divides data.train alone; set data.train_also=[], or data.spl"
    keys = ("data.val=null", "data.split=[0.1,0]", "data.train_also=[b.csv]")
    assert words in refusal(MOTION, *keys)


def test_segment_sampling_limits_the_number_of_views() -> None:
    segments = "clip.sampling=segments"
    assert load_config(MOTION, [segments, "test.clips=2"]).test.clips == 2
    assert "test.clips=5: clip.sampling=segments has 1 view (midpoints) or 2" in refusal(
        MOTION, segments, "test.clips=5"
    )
    assert load_config(
        CONFIGS / "motion_hiera_micro_mae.yaml", [segments, "test.clips=5"]
    )  # pre-training uses no views
    probing = [segments, "train.task=probe", "model.pretrained=runs/x"]
    assert load_config(MOTION, probing).probe.clips == 2
    assert "probe.clips=3: clip.sampling=segments has 1 view" in refusal(
        MOTION, *probing, "probe.clips=3"
    )


@pytest.mark.parametrize(
    "text",
    [
        "2024_10_05",
        "0010",
        "1e3",
        "yes",
        "runs/exp #3",
        "a: b",
        "*.mp4",
        "[a]",
        "a=b",
        "'x",
        ",",
        "::",
        "\t",
        " ",
        "none",
    ],
)
def test_text_is_taken_literally(text: str, tmp_path: Path) -> None:
    config = load_config(MOTION, [f"out_dir={text}", f"data.separator={text}"])
    assert (config.out_dir, config.data.separator) == (text, text)
    save_config(config, tmp_path / "config.yaml")
    assert flatten_config(load_config(tmp_path / "config.yaml")) == flatten_config(config)


@pytest.mark.parametrize("text", ["[0.8,0.9]", "0.8,0.9", "(0.8, 0.9)", " [0.8,0.9]"])
def test_lists_need_no_brackets(text: str) -> None:
    assert load_config(MOTION, [f"optim.betas={text}"]).optim.betas == (0.8, 0.9)
    frozen = load_config(MOTION, ["train.freeze=patch_embed"])
    assert frozen.train.freeze == ("patch_embed",)
    for name in ("a b.csv", "my clips (old)", "(a).csv"):
        assert load_config(MOTION, [f"data.train_also={name}"]).data.train_also == (name,)
    assert load_config(MOTION, ["augment.short_side="]).augment.short_side is None


def test_text_may_be_quoted_and_unset() -> None:
    assert load_config(MOTION, ["data.separator=' '"]).data.separator == " "
    assert load_config(MOTION, [r'data.separator="\t"']).data.separator == "\t"
    for unset in ("", "~", "null"):
        assert load_config(MOTION, [f"data.train={unset}"]).data.train is None
    assert "Incompatible value 'None' for field of type 'str'" in refusal(MOTION, "out_dir=null")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must contain `section: key: value` lines, but is empty or a single value"),
        ("just words", "unknown key 'just words'; sections: model, "),
        ("3", "cannot be read as `section: key: value` lines: Invalid loaded object type: int"),
        ("[1, 2]", "must contain `section: key: value` lines"),
        ("model: {name: hiera_micro_16x32}\nseed: 1\nseed: 2", "found duplicate key seed"),
        (
            "model: !!python/object/apply:os.system ['touch pwned']",
            "not valid YAML: could not determine a constructor",
        ),
        ("_base_: missing.yaml", "missing.yaml: no such configuration file (named as _base_ in "),
        ("_base_: x.yaml", "circular _base_ (x.yaml → x.yaml); remove one of them"),
        (
            "_base_:",
            "_base_: None: must be a file name or a list of them, such as k400_hiera_b.yaml",
        ),
        ("_base_: 5", "x.yaml: _base_: 5: must be a file name or a list of them"),
        ("_base_: [1]", "x.yaml: _base_: [1]: must be a file name or a list of them"),
        ("_base_: {a: b}", "x.yaml: _base_: {'a': 'b'}: must be a file name or a list of them"),
        ("seed: 1", "model.name is not set; choose one, such as hiera_base_16x224"),
        ("model:\n  name: hiera_micro_16x32\n optim: 1", "not valid YAML: "),
        ("model: {name: hiera_micro_16x32}\noptim: 3", "'optim' is a section"),
        (
            "model: {name: hiera_micro_16x32}\noptim: {betas: 0.9}",
            "optim.betas: must be a list, not float",
        ),
    ],
)
def test_refused_file(
    tmp_path: Path, text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in refusal(write(tmp_path, text))
    assert not (tmp_path / "pwned").exists()


def test_a_missing_file_lists_the_files_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "seed: 1", "a.yaml")
    write(tmp_path, "repos: []", ".pre-commit-config.yaml")
    assert "b.yaml: no such configuration file; *.yaml files in that folder: a.yaml; " in refusal(
        tmp_path / "b.yaml"
    )


def test_binary_file_is_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(bytes(range(128, 256)))
    assert "not valid YAML" in refusal(tmp_path / "x.yaml")


def test_loading_a_configuration_does_not_import_torch() -> None:
    code = (
        "import sys, hiera_video, hiera_video.workflows.build, hiera_video.cli.run\n"
        f"hiera_video.load_config({str(MOTION)!r})\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_loads_and_states_its_command(path: Path) -> None:
    config = load_config(path)
    assert Path(config.out_dir).name == path.stem
    assert f"train --cfg {path.stem}" in path.read_text()
