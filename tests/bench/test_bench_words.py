"""`vlfer bench words`: figures of made-up faces, whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from vlfer.bench import corrections
from vlfer.bench.shades import ACTIONS, INTENSITIES, shade_rows
from vlfer.bench.wording import VotedEmbedding, Wordings, held_out_texts
from vlfer.cli.bench_words import _unseen
from vlfer.correct import COUNT_POWER
from vlfer.text.labels import load_label_set
from vlfer.text.lexicon import VOTE_CLASSES
from vlfer.types import Embedding

SIDE = len(VOTE_CLASSES)


class KnowingBank:
    """Reads a sentence as the class whose words it holds; other words mean nothing in particular."""

    def __init__(self) -> None:
        self.meaning = {text.casefold(): c for text, _, c in held_out_texts()}
        for c, label in enumerate(load_label_set("ferplus8").labels):
            for text in (label.name, *label.synonyms, *label.descriptors):
                self.meaning[text.casefold()] = c

    def encode(self, sentences: Sequence[str]) -> Embedding:
        rows = np.full((len(sentences), SIDE), 0.3, np.float32)
        for i, sentence in enumerate(sentences):
            found = [c for text, c in self.meaning.items() if text in sentence.casefold()]
            for c in found[:1] if sentence.casefold() not in self.meaning else [self.meaning[sentence.casefold()]]:
                rows[i, c] += 2.0
        return Embedding(rows / np.linalg.norm(rows, axis=1, keepdims=True), "made")


def made_faces(seed: int, n: int = 160) -> VotedEmbedding:
    rng = np.random.default_rng(seed)
    votes = np.zeros((n, SIDE), np.float32)
    truth = np.arange(n) % SIDE
    votes[np.arange(n), truth] = 7
    votes[np.arange(n), (truth + 1) % SIDE] += rng.integers(0, 7, n)
    vectors = votes / votes.sum(axis=1, keepdims=True) + 0.02 * rng.random((n, SIDE))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    pixels = rng.integers(0, 255, (n, 16, 16, 3), dtype=np.uint8)
    return VotedEmbedding(Embedding(vectors, "made"), votes, pixels)


@pytest.fixture(scope="module")
def bench() -> Wordings:
    parts = {"validation": made_faces(0), "test": made_faces(1)}
    return Wordings(KnowingBank(), temperature=0.1, parts=parts)


def test_words_that_are_understood_are_right_and_named_ways_are_all_there(bench: Wordings) -> None:
    rows = bench.wordings()
    by_way = {row["way"]: row for row in rows}
    assert by_way["names"]["test war"] == pytest.approx(100.0)
    assert {"descriptors", "all, mean of logits", "contrast: all less negatives", "all, weighted by use"} <= set(by_way)
    for row in rows:
        assert 0 <= row["test uar"] <= 100


def test_paraphrases_tell_a_spread(bench: Wordings) -> None:
    for row in bench.paraphrases():
        assert row["war min"] <= row["war mean"] <= row["war max"]
        assert row["war sd"] >= 0


def test_mixtures_are_found_where_votes_are_split(bench: Wordings) -> None:
    rows = bench.mixtures()
    assert rows
    for row in rows:
        assert row["least probability of both"] > 0.9
        assert row["parts"] > 0.8


def test_corrections_and_abstention(bench: Wordings) -> None:
    bias = corrections.bias_rows(bench)
    assert bias[0]["correction"] == "none"
    assert len({row["labels"] for row in bias}) == 3
    rows = corrections.abstention_rows(bench)
    assert rows[0]["answered"] <= 100
    shares = [row["answered, label not asked for"] for row in rows if "threshold" in row]
    assert shares == sorted(shares, reverse=True)


def test_temperatures_are_fitted_anew_and_their_effect_is_told(bench: Wordings) -> None:
    rows = corrections.temperature_rows(bench)
    assert [row["labels"] for row in rows] == [2, 3, 5, 8, 16, 32, 64]
    power = corrections.fitted_power(rows)
    (refitted,) = [key for key in rows[0] if key.startswith("ece by power refitted")]
    assert f"({power:.2f})" in refitted
    for row in rows[:4]:  # up to eight labels the rule and its refit leave the temperature as it is
        assert row[refitted] == pytest.approx(row["ece fixed"])
        assert row[f"ece by count (power {COUNT_POWER:.2f})"] == pytest.approx(row["ece fixed"])


def test_the_english_word_helps_a_name_that_is_not_understood(bench: Wordings) -> None:
    for row in bench.languages():
        assert row["war with the English word"] == pytest.approx(100.0)
        assert row["war beside English"] == pytest.approx(100.0)
        assert row["war"] < 60


def test_the_power_of_the_count_is_found_again() -> None:
    rows = [{"labels": n, "best temperature / fitted": (n / 8) ** -0.3 if n > 8 else 5.0} for n in (2, 8, 16, 64)]
    assert corrections.fitted_power(rows) == pytest.approx(-0.3)


def test_the_command_prints_tables_and_writes_json(run, tiny_backbone_name, tmp_path):
    rng = np.random.default_rng(0)
    votes = np.zeros((400, 8), np.uint8)
    votes[np.arange(400), rng.integers(0, 8, 400)] = 10
    images = rng.integers(0, 255, (400, 32, 32), dtype=np.uint8)
    path = tmp_path / "faces.npz"
    np.savez(path, images=images, votes=votes, classes=np.array(VOTE_CLASSES))
    common = ["bench", "words", "--data", path, "--backbone", tiny_backbone_name, "--parts", "languages,relevance"]
    result = run(*common, "--out", tmp_path / "words.json")
    assert result.exit_code == 0, result.stderr
    assert "| German |" in result.stdout
    assert "| most relevant fifth hidden |" in result.stdout
    assert len(json.loads((tmp_path / "words.json").read_text())["parts"]["languages"]) == 4


def test_classes_never_shown_are_told_of_where_models_are_named(monkeypatch, tmp_path):
    row = {"class": "fear", "set": "faces", "n": 40, "recall": 0.25, "chance": 0.125, "predicted_share": 0.02,
           "war": 0.8, "uar": 0.6}  # fmt: skip
    asked = []
    monkeypatch.setattr("vlfer.bench.leave_out.find_models", lambda pattern: {"fear": Path(pattern)})
    monkeypatch.setattr(
        "vlfer.bench.leave_out.leave_out_report",
        lambda models, addresses, say: asked.extend([*models.values(), *addresses]) or {"rows": [row]},
    )
    (found,) = _unseen("runs/without-fear/model", tmp_path / "faces.npz")
    assert (found["class"], found["recall"], found["chance"]) == ("fear", 25.0, 12.5)
    assert asked[0] == Path("runs/without-fear/model")
    assert asked[1].path == tmp_path / "faces.npz"


@pytest.mark.parametrize(
    ("more", "words"),
    [(["--parts", "wording"], "Did you mean 'wordings'"), (["--sets", "ekman7"], "The set 'ekman7' has the labels")],
)
def test_mistakes_are_told(run, tmp_path, more, words):
    result = run("bench", "words", "--data", tmp_path / "x.npz", *more)
    assert result.exit_code == 2
    assert words in result.stderr


class ShadeBank:
    """Knows how much of its class every text of `INTENSITIES` means, and of movements only the open mouth."""

    def encode(self, sentences: Sequence[str]) -> Embedding:
        rows = np.full((len(sentences), SIDE), 0.3, np.float32)
        for i, sentence in enumerate(sentences):
            for name, less, more in INTENSITIES:
                rows[i, VOTE_CLASSES.index(name)] += (sentence == more) - (sentence == less)
            rows[i, 0] += sentence == "mouth wide open"
        return Embedding(rows / np.linalg.norm(rows, axis=1, keepdims=True), "made")


def test_shades_are_ranked_within_a_class_by_votes_and_by_the_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"validation": made_faces(0, 400), "test": made_faces(1, 400)}
    bench = Wordings(ShadeBank(), temperature=0.1, parts=parts)
    shut, wide = ShadeBank().encode(["lips closed", "mouth wide open"]).vectors
    openings = iter([part.images.vectors @ (wide - shut) for part in parts.values()])

    def meshes(images: np.ndarray) -> np.ndarray:
        points = np.tile(np.random.default_rng(0).random((478, 2)).astype(np.float32), (len(images), 1, 1))
        points[:, 14, 1] = points[:, 13, 1] + next(openings)  # the lower lip below the upper
        return points

    monkeypatch.setattr("vlfer.training.geometry.mesh_of_crops", meshes)
    rows = shade_rows(bench)
    assert [row["within"] for row in rows] == [*(name for name, _, _ in INTENSITIES), *["each class"] * len(ACTIONS)]
    by_votes = [row["Spearman"] for row in rows if row["ruler"] == "share of votes"]
    assert min(by_votes) > 0.9
    (mouth,) = (row["Spearman"] for row in rows if row["ruler"] == "mouth open")
    assert mouth > 0.9


def test_shades_without_a_mesh_are_ranked_by_votes_alone() -> None:
    bench = Wordings(ShadeBank(), temperature=0.1, parts={"validation": made_faces(0), "test": made_faces(1)})
    assert {row["ruler"] for row in shade_rows(bench)} == {"share of votes"}  # noise shows no face
