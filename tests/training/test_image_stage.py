from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vlfer.errors import DataError
from vlfer.models.face_tower import BranchName
from vlfer.training.data import load_voted_faces
from vlfer.training.geometry import NAMES
from vlfer.training.image_stage import Geometry, ImageStage, sampling_weights
from vlfer.training.recipe import BackboneRecipe


def _recipe(archive: Path, **image: object) -> BackboneRecipe:
    settings = {"start": "random", "frozen_stages": 1, "epochs": 2, "batch_size": 16, **image}
    networks = {"mobileface": settings, "lite0": settings}
    return BackboneRecipe.model_validate(
        {"data": {"train": archive}, "image": networks, "precision": "fp32", "compile": False, "threads": 1}
    )


def _stage(archive: Path, folder: Path, *, name: BranchName = "mobileface", **image: object) -> ImageStage:
    recipe = _recipe(archive, **image)
    faces = load_voted_faces(archive, classes=recipe.classes)
    measured = np.random.default_rng(0).normal(size=(len(faces), len(NAMES))).astype(np.float32)
    folder.mkdir(exist_ok=True)
    return ImageStage(recipe, name, faces, Geometry.standardise(measured), folder)


@pytest.mark.parametrize("name", ["mobileface", "lite0"])
def test_a_resumed_run_gives_the_same_weights(archive: Path, tmp_path: Path, name: BranchName) -> None:
    whole = _stage(archive, tmp_path / "whole", name=name)
    whole.run()

    class StopRunError(Exception):
        pass

    def stop(stage: ImageStage, row: dict[str, object]) -> None:
        if row["epoch"] == 2:
            raise StopRunError

    with pytest.raises(StopRunError):
        _stage(archive, tmp_path / "parts", name=name).run(on_epoch=stop)
    resumed = _stage(archive, tmp_path / "parts", name=name)
    assert resumed.step == resumed.steps_per_epoch
    resumed.run()
    for name, value in whole.averaged().state_dict().items():
        torch.testing.assert_close(resumed.averaged().state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_frozen_stages_keep_their_weights_and_the_others_learn(archive: Path, tmp_path: Path) -> None:
    stage = _stage(archive, tmp_path / "run", epochs=1)
    before = {k: v.clone() for k, v in stage.model.state_dict().items()}
    stage.run()
    after = stage.model.state_dict()
    assert torch.equal(before["tower.stem.weight"], after["tower.stem.weight"])
    assert torch.equal(before["tower.stem_norm.running_mean"], after["tower.stem_norm.running_mean"])
    assert not torch.equal(before["tower.blocks.0.pointwise.weight"], after["tower.blocks.0.pointwise.weight"])


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(archive: Path, tmp_path: Path) -> None:
    stage = _stage(archive, tmp_path / "run", epochs=1)
    stage.save()
    kept = stage.state_file.read_bytes()
    with torch.no_grad():
        stage.model.votes.weight.fill_(float("nan"))
    with pytest.raises(DataError, match="The loss is nan"):
        stage.run()
    assert stage.state_file.read_bytes() == kept


def test_too_few_faces_for_a_batch_is_an_error(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fewer than one batch"):
        _stage(archive, tmp_path / "run", batch_size=64)


def test_rare_classes_are_drawn_more_often_than_they_occur() -> None:
    majority = np.array([0] * 90 + [1] * 10)
    plain = sampling_weights(majority, classes=2, balance=0.0)
    even = sampling_weights(majority, classes=2, balance=1.0)
    assert plain[majority == 1].sum() == pytest.approx(0.1, abs=1e-4)
    assert even[majority == 1].sum() == pytest.approx(0.5, abs=1e-4)
