"""Usefulness of sentences."""

from __future__ import annotations

import numpy as np
import pytest

from vlfer.text.weigh import usefulness


def test_a_sentence_that_separates_counts_and_one_that_misleads_does_not() -> None:
    truth = np.array([0, 0, 0, 1, 1, 1])
    own = np.array([0.9, 0.8, 0.7, 0.1, 0.2, 0.3], np.float32)
    noise = np.array([0.1, 0.5, 0.3, 0.2, 0.4, 0.35], np.float32)
    similarity = np.stack([own, noise, -own, -own], axis=1)
    values = usefulness(similarity, truth, np.array([0, 0, 0, 1]))
    assert values[0] == pytest.approx(1.0)
    assert 0 <= values[1] < 0.5
    assert values[2] == 0.0
    assert values[3] == pytest.approx(1.0)


def test_a_label_without_a_face_is_left_alone() -> None:
    assert usefulness(np.zeros((3, 1), np.float32), np.array([0, 1, 1]), np.array([2])).tolist() == [1.0]
