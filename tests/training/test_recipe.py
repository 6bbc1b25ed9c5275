from __future__ import annotations

from pathlib import Path

import pytest

from vlfer.config import resource_dir
from vlfer.errors import ConfigError
from vlfer.training.recipe import load_recipe


def test_the_shipped_recipe_is_valid_and_can_be_overridden() -> None:
    recipe = load_recipe(resource_dir("configs") / "bundled.yaml", overrides=["image.lite0.epochs=2", "seed=5"])
    assert (recipe.image["lite0"].epochs, recipe.seed) == (2, 5)


def test_all_mistakes_are_told_at_once_with_the_near_key(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("data: {train: a.npz}\nimage: {lite0: {epoch: 3, batch_size: one}}\n")
    with pytest.raises(ConfigError) as told:
        load_recipe(path)
    assert "Did you mean 'epochs'?" in str(told.value)
    assert "image.lite0.batch_size" in str(told.value)


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", ""])
def test_no_mapping_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError):
        load_recipe(path)


def test_an_override_without_value_is_an_error() -> None:
    with pytest.raises(ConfigError, match="sets nothing"):
        load_recipe(resource_dir("configs") / "bundled.yaml", overrides=["image.lite0.epochs"])


def test_classes_to_leave_out_are_one_name_or_several() -> None:
    path = resource_dir("configs") / "leave-out.yaml"
    assert load_recipe(path).data.leave_out == ()
    assert load_recipe(path, overrides=["data.leave_out=fear"]).data.leave_out == ("fear",)
    two = load_recipe(path, overrides=["data.leave_out=[surprise, anger]"])
    assert two.data.leave_out == ("surprise", "anger")


def test_a_class_to_leave_out_must_be_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'disgust'"):
        load_recipe(resource_dir("configs") / "leave-out.yaml", overrides=["data.leave_out=disgusted"])
