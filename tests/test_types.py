import numpy as np
import pytest

from vlfer.errors import PromptError, ShapeError, SpaceError
from vlfer.types import Embedding, Face, FaceClip, FaceTrack, Frames, Label, LabelSet, Scores


def test_frames_tell_expected_and_actual_shape():
    with pytest.raises(ShapeError, match=r"\(2, 4, 4\).*Expected shape \(T, H, W, 3\)"):
        Frames(np.zeros((2, 4, 4), np.uint8), np.zeros(2))
    with pytest.raises(ShapeError, match="float32"):
        Frames(np.zeros((2, 4, 4, 3), np.float32), np.zeros(2))
    with pytest.raises(ShapeError, match="different length"):
        Frames(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3))
    with pytest.raises(ShapeError, match="is a list"):
        Frames([[1]], np.zeros(1))
    assert len(Frames(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2))) == 2


def test_a_face_has_four_sides_and_points_in_two_dimensions():
    box = np.array([0, 0, 1, 1], np.float32)
    assert Face(box, 0.9).landmarks is None
    with pytest.raises(ShapeError, match=r"Face\.box"):
        Face(box[:3], 0.9)
    with pytest.raises(ShapeError, match=r"Face\.landmarks"):
        Face(box, 0.9, np.zeros((5, 3), np.float32))


def test_a_track_meets_a_frame_once():
    boxes, scores = np.zeros((2, 4), np.float32), np.zeros(2, np.float32)
    assert len(FaceTrack(boxes, scores, np.array([3, 4]))) == 2
    with pytest.raises(ShapeError, match="does not increase"):
        FaceTrack(boxes, scores, np.array([4, 4]))
    with pytest.raises(ShapeError, match="different length"):
        FaceTrack(boxes, scores, np.array([1, 2, 3]))


def test_a_clip_has_a_time_for_every_crop():
    with pytest.raises(ShapeError, match="different length"):
        FaceClip(np.zeros((3, 8, 8, 3), np.uint8), np.zeros(2))


def test_an_embedding_is_made_of_unit_vectors():
    with pytest.raises(ShapeError, match="not unit vectors"):
        Embedding(np.ones((1, 4), np.float32), "s")
    with pytest.raises(ShapeError, match="not unit vectors"):
        Embedding(np.full((1, 4), np.nan, np.float32), "s")


def test_similarity_is_the_cosine_within_one_space():
    axes = Embedding(np.eye(3, dtype=np.float32), "s")
    np.testing.assert_array_equal(axes.similarity(axes), np.eye(3))
    with pytest.raises(SpaceError, match=r"'s'.*'other'"):
        axes.similarity(Embedding(np.eye(3, dtype=np.float32), "other"))


def test_a_label_set_finds_names_aliases_and_synonyms():
    labels = LabelSet(
        (Label("anger", aliases=("Angry", "AN"), synonyms=("rage",)), Label("happiness", aliases=("HA",)))
    )
    assert labels.names == ("anger", "happiness")
    assert [labels.index(name) for name in ("ANGER", "angry", "an", "rage", "ha")] == [0, 0, 0, 0, 1]
    with pytest.raises(PromptError, match="Did you mean 'anger'"):
        labels.index("angers")


@pytest.mark.parametrize("names", [(), ("joy", "Joy"), ("a_b", "a b"), (" ",)])
def test_empty_and_double_labels_are_refused(names):
    with pytest.raises(PromptError):
        LabelSet(tuple(Label(name) for name in names))


def test_the_hash_follows_the_words_and_not_the_name():
    one = LabelSet((Label("joy", descriptors=("a smile",)),), name="one")
    two = LabelSet((Label("joy", descriptors=("a smile",)),), name="two")
    three = LabelSet((Label("joy", descriptors=("a grin",)),), name="one")
    assert one.sha256 == two.sha256 != three.sha256


def test_scores_have_a_column_for_every_label():
    labels = LabelSet((Label("joy"), Label("grief")))
    good = np.full((3, 2), 0.5, np.float32)
    assert len(Scores(good, good, 1.0, labels)) == 3
    with pytest.raises(ShapeError, match=r"Scores\.probability"):
        Scores(good, good[:, :1].copy(), 1.0, labels)


def test_frozen_types_cannot_be_changed():
    face = Face(np.zeros(4, np.float32), 0.5)
    with pytest.raises(AttributeError):
        face.score = 1.0  # type: ignore[misc]
