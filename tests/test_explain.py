"""Why a label: pulls that add up, and maps that find what was put there."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from vlfer.errors import PromptError, ShapeError
from vlfer.explain import Explanation, explain_analysis, explain_face, face_thirds
from vlfer.models.relevance import relevance_map
from vlfer.pipeline import load_pipeline
from vlfer.serve.why import plot_explanations
from vlfer.text.bank import TextBank, compared_sentences, embed_labels
from vlfer.text.labels import load_label_set, resolve_label_spec


def explained(
    encoder: Any, spec: str, *, ensemble: Any = "all", pooling: Any = "embeddings", **more: Any
) -> Explanation:
    labels = resolve_label_spec(spec)
    crop = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    sentences = [s for x in labels.labels for s in compared_sentences(x, ensemble=ensemble, label_set=labels)]
    return explain_face(
        crop, encoder=encoder, words=embed_labels(TextBank(encoder), labels, ensemble=ensemble), sentences=sentences,
        labels=labels, temperature=0.05, pooling=pooling, **more,
    )  # fmt: skip


@pytest.mark.parametrize("pooling", ["embeddings", "logits"])
@pytest.mark.parametrize("ensemble", ["all", "contrast", "name"])
def test_pulls_add_up_to_the_lead(tiny_backbone: Any, ensemble: str, pooling: str) -> None:
    one = explained(tiny_backbone, "ferplus8", ensemble=ensemble, pooling=pooling, with_map=False)
    assert sum(pull.pull for pull in one.pulls) == pytest.approx(one.lead, abs=1e-3)
    assert {pull.label for pull in one.pulls} == {one.label, one.rival}
    assert one.lead >= 0
    strengths = [pull.pull for pull in one.pulls]
    assert strengths == sorted(strengths, reverse=True)
    assert all(pull.pull > 0 for pull in one.strongest())
    assert all(pull.pull < 0 for pull in one.against())


def test_a_label_may_be_chosen_and_one_label_has_no_rival(tiny_backbone: Any) -> None:
    assert explained(tiny_backbone, "ferplus8", label="fear", with_map=False).label == "fear"
    with pytest.raises(PromptError, match="'fury of' is not in the set"):
        explained(tiny_backbone, "ferplus8", label="fury of", with_map=False)
    alone = explained(tiny_backbone, '"a broad smile",')
    assert (alone.label, alone.rival) == ("a broad smile", "")
    json.dumps(alone.as_dict())


def test_every_kind_of_backbone_has_a_map(tiny_backbone: Any, tiny_hf_clip: Any, tiny_siglip: Any) -> None:
    from vlfer.models.encoder import load_encoder

    for encoder in (
        tiny_backbone, load_encoder(f"hf:{tiny_hf_clip}", device="cpu"), load_encoder(f"hf:{tiny_siglip}", device="cpu")
    ):  # fmt: skip
        pixels = np.random.default_rng(1).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        directions = np.random.default_rng(2).normal(size=(3, encoder.dimension)).astype(np.float32)
        maps = [relevance_map(encoder, pixels, directions, label=i, temperature=1.0) for i in range(3)]
        for found in maps:
            assert found.shape == (40, 40)
            assert 0.0 <= found.min() <= found.max() <= 1.0
        assert any(found.max() == 1.0 for found in maps)
        assert not np.allclose(maps[0], maps[1])
        assert not any(True for p in encoder.model.parameters() if p.grad is not None)


def test_what_is_no_face_crop_is_refused(tiny_backbone: Any) -> None:
    with pytest.raises(ShapeError, match="Expected"):
        relevance_map(
            tiny_backbone, np.zeros((4, 5, 3), np.uint8), np.ones((1, 24), np.float32), label=0, temperature=1
        )


def test_thirds_are_shares() -> None:
    relevance = np.zeros((9, 9), np.float32)
    relevance[:3] = 1.0
    relevance[8, 0] = 9.0
    shares = face_thirds(relevance)
    assert shares == {
        "brows and eyes": pytest.approx(0.75),
        "nose and cheeks": 0.0,
        "mouth and chin": pytest.approx(0.25),
    }
    assert sum(face_thirds(np.zeros((9, 9), np.float32)).values()) == 0.0


def test_the_bundled_model_finds_a_smile_in_the_lower_face() -> None:
    from vlfer.cli.predict import sample_path

    pipeline = load_pipeline(labels="ekman7", device="cpu")
    (analysis,) = pipeline.analyse([sample_path()])
    again, (one,) = explain_analysis(pipeline, sample_path(), analysis)
    assert one is not None
    assert one.relevance is not None
    why = again.report.predictions[0].explanation
    assert why["label"] == "happiness"
    assert max(face_thirds(one.relevance).items(), key=lambda item: item[1])[0] == "mouth and chin"
    assert why["pulled_for"][0]["label"] == "happiness"
    assert again.report.predictions[0].probability == analysis.report.predictions[0].probability
    figure = plot_explanations([one, None], title="x")
    assert len(figure.axes) == 3


def test_a_video_is_explained_by_its_thumbnails(tiny_backbone_name: str, synthetic_frames: Any) -> None:
    pipeline = load_pipeline(tiny_backbone_name, labels="ekman7", faces="whole", device="cpu")
    (analysis,) = pipeline.analyse([synthetic_frames], on_error="raise")
    again, found = explain_analysis(pipeline, synthetic_frames, analysis)
    assert len(found) == len(analysis.report.predictions) > 0
    assert all(one is not None and one.crop.shape[0] == one.crop.shape[1] for one in found)
    assert all(p.explanation["label"] == p.top[0][0] for p in again.report.predictions)


def test_nothing_to_draw_is_told() -> None:
    with pytest.raises(ShapeError, match="no explanation"):
        plot_explanations([None])


def test_dynamics_and_all_give_sentences_in_the_order_of_their_vectors(tiny_backbone: Any) -> None:
    one = explained(tiny_backbone, "mafw43", ensemble="parts", with_map=False)
    known = {s for x in load_label_set("basic").labels for s in compared_sentences(x)}
    assert {pull.sentence for pull in one.pulls} <= known
    face = tiny_backbone.encode_images(one.crop[None])
    for pull in one.pulls[:3]:
        cosine = face.similarity(tiny_backbone.encode_texts([pull.sentence]))[0, 0]
        assert pull.similarity == pytest.approx(float(cosine), abs=1e-4)
