from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlfer.errors import DataError
from vlfer.training.data import content_groups, load_voted_faces, split_by_content

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")


def test_votes_for_other_columns_are_dropped(archive: Path) -> None:
    faces = load_voted_faces(archive, classes=CLASSES)
    assert faces.votes.shape == (40, 8)
    np.testing.assert_allclose(faces.distribution.sum(axis=1), 1, atol=1e-6)


def test_one_picture_is_never_on_two_sides(archive: Path) -> None:
    faces = load_voted_faces(archive, classes=CLASSES)
    groups = content_groups(faces.images)
    assert (groups[36:] == groups[:4]).all()
    split = split_by_content(faces.images, validation=0.3, test=0.3)
    assert sorted(np.concatenate(list(split.values())).tolist()) == list(range(40))
    sides = {int(row): side for side, rows in split.items() for row in rows}
    assert all(sides[i] == sides[36 + i] for i in range(4))


def test_split_does_not_depend_on_the_order_of_the_archive(archive: Path) -> None:
    images = load_voted_faces(archive, classes=CLASSES).images
    order = np.random.default_rng(1).permutation(len(images))
    one = {images[i].tobytes() for i in split_by_content(images, validation=0.2, test=0.2)["test"]}
    shuffled = images[order]
    two = {shuffled[i].tobytes() for i in split_by_content(shuffled, validation=0.2, test=0.2)["test"]}
    assert one == two


def test_a_class_can_be_left_out_with_every_vote(archive: Path) -> None:
    faces = load_voted_faces(archive, classes=CLASSES)
    rows = faces.rows_without(["sadness"])
    assert (faces.majority[rows] != 3).all()
    assert faces.without_votes_for(["sadness"]).votes[:, 3].sum() == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"votes": None}, "has no votes"),
        ({"images": np.zeros((40, 8, 9), np.uint8)}, "'images' has shape"),
        ({"votes": np.zeros((39, 10), np.uint8)}, "'votes' has shape"),
        ({"classes": np.array([*"abcdefghij"])}, "no votes for neutral"),
    ],
)
def test_another_layout_is_an_error(archive: Path, tmp_path: Path, change: dict[str, object], told: str) -> None:
    content = {key: value for key, value in {**np.load(archive), **change}.items() if value is not None}
    other = tmp_path / "other.npz"
    np.savez(other, **content)
    with pytest.raises(DataError, match=told):
        load_voted_faces(other, classes=CLASSES)


def test_a_missing_or_foreign_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_voted_faces(tmp_path / "none.npz", classes=CLASSES)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="npz archive"):
        load_voted_faces(tmp_path / "text.npz", classes=CLASSES)
