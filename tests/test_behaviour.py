"""What the bundled backbone says of real pictures."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data

from vlfer import load_pipeline
from vlfer.models.bundled import load_bundled, read_card
from vlfer.pipeline import EmotionPipeline


@pytest.fixture(scope="module")
def pipeline() -> EmotionPipeline:
    return load_pipeline(labels="ekman7")


def test_the_astronaut_smiles(pipeline: EmotionPipeline) -> None:
    (face,) = pipeline.predict(skimage.data.astronaut()).predictions
    assert face.label == "happiness"
    assert face.probability > 0.8
    assert face.similarity is not None


@pytest.mark.parametrize(
    ("labels", "best"),
    [
        ("a broad smile, weeping, furious shouting, blank stare", "a broad smile"),
        ("grief, delight, rage, dread", "delight"),
        ("about to cry, on cloud nine, ready to explode", "on cloud nine"),
        ("the lip corners are pulled up and the cheeks raised, brows lowered and lips pressed", None),
    ],
)
def test_any_words_find_the_smile(labels: str, best: str | None) -> None:
    (face,) = load_pipeline(labels=labels).predict(skimage.data.astronaut()).predictions
    assert face.top[0][0] == (best or "the lip corners are pulled up and the cheeks raised")


@pytest.mark.parametrize("picture", ["chelsea", "coffee"])
def test_a_cat_and_a_cup_have_no_face(pipeline: EmotionPipeline, picture: str) -> None:
    report = pipeline.predict(getattr(skimage.data, picture)())
    assert report.status == "no_face"
    assert not report.predictions


def test_colour_has_no_influence() -> None:
    encoder = load_bundled()
    colour = skimage.data.astronaut()[0:200, 130:330]
    luminance = colour @ np.array([0.299, 0.587, 0.114])
    grey = np.repeat(luminance.round().astype(np.uint8)[..., None], 3, axis=2)
    vectors = encoder.encode_images(np.stack([colour, grey])).vectors
    assert float(vectors[0] @ vectors[1]) > 0.995


def test_opposites_and_negations_are_told_apart() -> None:
    vectors = load_bundled().encode_texts(["happy", "sad", "not happy", "cheerful", "sorrowful"]).vectors
    happy, sad, not_happy, cheerful, sorrowful = vectors
    assert happy @ cheerful > happy @ sad
    assert sad @ sorrowful > sad @ happy
    assert not_happy @ sad > not_happy @ happy


def test_the_card_tells_figures_on_faces_held_out_by_content() -> None:
    figures = read_card()["figures"]
    assert figures["test"]["n"] > 1000
    assert figures["test"]["war"] >= 0.82
    assert figures["test"]["ece"] <= 0.05
