"""The configuration of fine-tuning: what it takes, and what it says to mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlfer.config import resource_dir
from vlfer.errors import ConfigError
from vlfer.training.finetune_config import load_finetune_config

SHIPPED = ("quick_cpu", "dfew_vitb16_lora", "mafw_vitb16_lora", "mie_flow_lora", "video_temporal_bundled")


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configurations_load(name: str) -> None:
    config = load_finetune_config(resource_dir("configs") / f"{name}.yaml")
    assert config.input == {"mie_flow_lora": "flow", "quick_cpu": "images"}.get(name, "videos")


def test_overrides_reach_through_sections(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {lora: {rank: 2}}\n")
    config = load_finetune_config(path, overrides=["train.lora.rank=16", "loop.epochs=3", "train.temporal=null"])
    assert config.train.lora is not None
    assert (config.train.lora.rank, config.loop.epochs, config.train.temporal) == (16, 3, None)


def test_all_mistakes_are_told_with_the_near_key(tmp_path: Path) -> None:
    path = write(tmp_path, "loop: {epocs: 3, batch_size: 0}\ntrain: {lora: {rnak: 4}}\n")
    with pytest.raises(ConfigError) as caught:
        load_finetune_config(path)
    message = str(caught.value)
    assert "loop.epochs" in message
    assert "train.lora.rank" in message
    assert "batch_size" in message
    assert "3 mistakes" in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("train: {lora: null}", "nothing learns"),
        ("train: {temporal: {layers: 1}}", "input to videos"),
        ("input: flow\ntrain: {context: 4}", "flow encoder"),
        ("data: {archive: a.npz, root: b}", "archive stands alone"),
        ("data: {dataset: dfew}", "dataset needs root"),
        ("objective: {kind: teacher}", "go together"),
        ("- 1", "Expected keys"),
        ("a: [", "cannot be read"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_finetune_config(write(tmp_path, text))


@pytest.mark.parametrize("override", ["loop", "loop.epochs.x=1"])
def test_an_override_that_sets_nothing_is_told(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load_finetune_config(write(tmp_path, "loop: {epochs: 1}"), overrides=[override])


def test_a_missing_file_suggests_the_near_one() -> None:
    with pytest.raises(ConfigError, match="quick_cpu"):
        load_finetune_config(resource_dir("configs") / "quik_cpu.yaml")


def test_the_documentation_lists_every_key() -> None:
    from pathlib import Path as File

    from vlfer.training.finetune_config import known_keys

    text = (File(__file__).parents[2] / "docs" / "finetuning.md").read_text()
    missing = [key for key in known_keys() if f"`{key}`" not in text]
    sections = {"data", "train", "objective", "loop", "train.lora", "train.temporal"}
    assert not set(missing) - sections
