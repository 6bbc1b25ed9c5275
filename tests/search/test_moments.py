"""From sources to moments and from words to vectors, with a tiny random backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlfer.config import PredictConfig
from vlfer.errors import PromptError
from vlfer.pipeline import EmotionPipeline
from vlfer.search import SearchIndex, find_moments, query_vector
from vlfer.text.bank import TextBank
from vlfer.text.labels import parse_labels
from vlfer.types import Frames


@pytest.fixture(scope="module")
def pipeline(tiny_backbone: Any) -> EmotionPipeline:
    config = PredictConfig(faces="whole", fps=12.0)
    bank = TextBank(tiny_backbone)
    return EmotionPipeline(tiny_backbone, labels=parse_labels("joy, grief"), bank=bank, detector=None, config=config)


def test_moments_of_a_video_cover_it_in_half_seconds(pipeline: EmotionPipeline, synthetic_frames: Frames) -> None:
    moments = find_moments(pipeline, synthetic_frames)
    assert [(m.start_s, m.end_s) for m in moments] == [(0.0, 0.5), (0.5, pytest.approx(1.0))]
    assert all(np.linalg.norm(m.vector) == pytest.approx(1.0, abs=1e-5) for m in moments)
    assert all(m.thumbnail is not None and m.thumbnail.startswith(b"\xff\xd8") for m in moments)
    assert all(m.thumbnail is None for m in find_moments(pipeline, synthetic_frames, thumbnails=False))


def test_moment_of_an_image_is_found_by_its_own_vector(
    pipeline: EmotionPipeline, synthetic_frames: Frames, tmp_path: Path
) -> None:
    path = tmp_path / "frown.png"
    Image.fromarray(synthetic_frames.pixels[0]).save(path)
    (moment,) = find_moments(pipeline, path)
    assert (moment.start_s, moment.end_s) == (0.0, 0.0)
    with SearchIndex.open(tmp_path / "index", encoder_space=pipeline.encoder.space) as index:
        index.add_source(path, [moment])
        index.add_source("clip", find_moments(pipeline, synthetic_frames))
        assert index.query(moment.vector, 1)[0].source == str(path)


def test_query_vector_is_that_of_a_typed_label(pipeline: EmotionPipeline) -> None:
    vector = query_vector(pipeline.bank, "a suppressed smile")
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    assert float(vector @ query_vector(pipeline.bank, "a suppressed smile")) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(PromptError):
        query_vector(pipeline.bank, " ")
