import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlfer.cells import CellBuilder, join_cells, window_means
from vlfer.errors import ShapeError
from vlfer.types import Embedding


def embedding(n, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32) + 1
    return Embedding(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), "s")


@settings(deadline=None, max_examples=60)
@given(
    gaps=st.lists(st.floats(0.01, 0.9), min_size=1, max_size=60),
    hop_s=st.floats(0.05, 1.0),
    factor=st.floats(1.0, 6.0),
    size=st.integers(1, 20),
)
def test_built_piece_by_piece_equals_built_whole(gaps, hop_s, factor, size):
    times_s = 3.0 + np.cumsum(gaps)
    vectors = embedding(len(gaps))
    sizes = {"window_s": hop_s * factor, "hop_s": hop_s, "frame_s": 0.1}
    whole = window_means(vectors, times_s, **sizes)
    builder, parts = CellBuilder(**sizes), []
    for first in range(0, len(gaps), size):
        some = slice(first, first + size)
        parts.append(builder.add(times_s[some], Embedding(vectors.vectors[some], "s")))
    parts.append(builder.finish())
    pieces = join_cells([part for part in parts if part is not None])
    np.testing.assert_allclose(pieces.start_s, whole.start_s)
    np.testing.assert_allclose(pieces.end_s, whole.end_s)
    np.testing.assert_allclose(pieces.embedding.vectors, whole.embedding.vectors, atol=1e-5)


def test_only_a_window_of_vectors_is_held():
    builder = CellBuilder(window_s=1.0, hop_s=0.25, frame_s=0.1)
    for first in range(0, 3000, 10):
        builder.add(np.arange(first, first + 10) * 0.1, embedding(10))
        assert len(builder._times_s) < 40


def test_a_pool_sees_the_times_from_the_middle_of_its_window():
    seen = []

    def pool(vectors, mask, offsets_s):
        seen.append(np.where(mask, offsets_s, 0))
        return vectors[:, 0]

    window_means(embedding(20), np.arange(20) * 0.1, window_s=0.6, hop_s=0.3, frame_s=0.1, pool=pool)
    offsets = np.concatenate([part.ravel() for part in seen])
    assert np.abs(offsets).max() <= 0.3 + 1e-6
    assert offsets.min() < 0 < offsets.max()


def test_times_must_increase_over_pieces():
    builder = CellBuilder(window_s=1.0, hop_s=0.25, frame_s=0.1)
    builder.add(np.array([0.0, 1.0]), embedding(2))
    with pytest.raises(ShapeError, match="increasing times"):
        builder.add(np.array([1.0, 2.0]), embedding(2))
    with pytest.raises(ShapeError, match="no cells"):
        join_cells([])
