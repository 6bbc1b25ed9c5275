"""Named ways of combining sentences, through `embed_labels` and the scorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from vlfer.errors import PromptError
from vlfer.scoring import score
from vlfer.text.bank import compared_sentences, embed_labels
from vlfer.text.combine import (
    ENSEMBLES,
    NEGATIVE_SHARE,
    Ensemble,
    definition_of,
    find_parts,
    load_glossary,
    sentence_groups,
)
from vlfer.text.labels import labels_from_words, load_label_set, parse_labels, shipped_sets
from vlfer.types import Embedding, Label, LabelSet


class MadeBank:
    """Every sentence has a fixed random vector."""

    def encode(self, sentences: Sequence[str]) -> Embedding:
        seeds = [int.from_bytes(s.encode(), "little") % 2**32 for s in sentences]
        rows = np.stack([np.random.default_rng(seed).normal(size=16) for seed in seeds])
        return Embedding((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), "made")


RICH = Label(
    "glee",
    descriptors=("Lip corners up.", "Cheeks lifted."),
    synonyms=("joyfulness",),
    negatives=("tears", "a wrinkled nose"),
    definition="great joy",
    dynamics=("The mouth moves first.",),
)
SET = LabelSet((RICH, Label("gloom")))


def words(ensemble: Ensemble, label: Label = RICH) -> set[str]:
    return set(compared_sentences(label, ensemble=ensemble, label_set=SET))


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("name", ["ferplus8", "mafw43", "rafdb-compound11"])
def test_every_way_gives_every_label_sentences_whose_weights_for_it_sum_to_one(name: str, ensemble: Ensemble) -> None:
    labels = load_label_set(name)
    sentences, owner, weight = embed_labels(MadeBank(), labels, ensemble=ensemble)
    assert len(sentences) == len(owner) == len(weight)
    for i, label in enumerate(labels.labels):
        own = weight[owner == i]
        assert own[own > 0].sum() == pytest.approx(1.0, abs=1e-5)
        against = NEGATIVE_SHARE if ensemble == "contrast" and label.negatives else 0.0
        assert own[own < 0].sum() == pytest.approx(-against, abs=1e-5)
        assert len(own) == len(compared_sentences(label, ensemble=ensemble, label_set=labels))


def test_what_each_way_adds() -> None:
    assert words("name") == {"glee"}
    assert words("dynamics") - words("all") == {"The mouth moves first."}
    assert words("contrast") - words("all") == {"tears", "a wrinkled nose"}
    assert all("great joy" in text for text in words("definitions") - words("all"))
    assert len(words("definitions") - words("all")) == 3
    assert words("parts") == words("all")  # it is no mixture
    assert words("descriptors", SET.labels[1]) == words("templates", SET.labels[1])


def test_weights_of_the_file_count_and_equal_ones_change_nothing() -> None:
    def group(weights: tuple[float, ...]) -> list[float]:
        label = Label("x", descriptors=("A mouth.", "An eye."), weights=weights)
        return sentence_groups(label, LabelSet((label,)), ensemble="descriptors")[0].spread()

    assert group((3.0, 1.0)) == [0.75, 0.25]
    assert group((2.0, 2.0)) == group(()) == [0.5, 0.5]


@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        ("fear and surprise", ("fear", "surprise")),
        ("happiness_sadness", ("happiness", "sadness")),
        ("joy mixed with afraid", ("happiness", "fear")),
        ("awe and reverence", ()),
        ("anger", ()),
        ("happiness and joy", ()),
        ("and", ()),
    ],
)
def test_typed_mixtures_are_taken_apart_where_both_parts_are_known(typed: str, parts: tuple[str, ...]) -> None:
    labels = labels_from_words([typed, "boredom"])
    assert tuple(part.name for part in find_parts(labels.labels[0], labels)) == parts


def test_a_mixture_lies_between_its_parts() -> None:
    labels = labels_from_words(["fear and surprise", "boredom"])
    basic = load_label_set("basic")
    own = [basic.labels[basic.index(name)] for name in ("fear", "surprise")]
    found, owner, weight = embed_labels(MadeBank(), labels, ensemble="parts")
    mixed = weight[owner == 0] @ found.vectors[owner == 0]
    parts, part_owner, part_weight = embed_labels(MadeBank(), LabelSet(tuple(own)), ensemble="all")
    means = [part_weight[part_owner == i] @ parts.vectors[part_owner == i] for i in (0, 1)]
    np.testing.assert_allclose(mixed, np.mean(means, axis=0), atol=1e-5)


def test_a_part_of_the_own_set_comes_before_the_library() -> None:
    own = Label("fear", descriptors=("My own fear.",))
    labels = LabelSet((own, Label("scare", parts=("fear", "surprise"))))
    assert "My own fear." in compared_sentences(labels.labels[1], ensemble="parts", label_set=labels)


@pytest.mark.parametrize("pooling", ["embeddings", "logits"])
def test_negatives_push_away_what_they_describe(pooling: str) -> None:
    bank = MadeBank()
    labels = LabelSet((Label("glee", negatives=("tears",)), Label("gloom")))
    face = bank.encode(["tears"])
    plain, less = (
        score(face, labels, bank, temperature=0.1, ensemble=e, pooling=pooling).similarity  # type: ignore[arg-type]
        for e in ("all", "contrast")
    )
    assert less[0, 0] < plain[0, 0] - 0.1
    assert less[0, 1] == pytest.approx(plain[0, 1], abs=1e-6)


def test_an_unknown_way_is_told_with_the_near_one() -> None:
    with pytest.raises(PromptError, match="Did you mean 'contrast'"):
        embed_labels(MadeBank(), SET, ensemble="contrasts")  # type: ignore[arg-type]


def test_the_glossary_explains_rare_words_and_idioms_typed_in_any_case() -> None:
    assert len(load_glossary()) > 150
    for word in ("Schadenfreude", "awe", "on the verge of tears"):
        assert definition_of(Label(word))
    assert definition_of(Label("awe", definition="mine")) == "mine"
    assert definition_of(Label("happiness")) == ""
    for word, meaning in load_glossary().items():
        assert word not in meaning, "a meaning that says the word explains nothing"


def test_definitions_are_opt_in() -> None:
    typed = parse_labels("awe, boredom")
    assert not any("wonder" in text for text in compared_sentences(typed.labels[0]))
    assert any("wonder" in text for text in compared_sentences(typed.labels[0], ensemble="definitions"))


def test_keys_of_the_file_reach_the_label_and_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = "name: mine\nlabels:\n  - {name: awe, descriptors: [Wide eyes., Open mouth.]%s}\n  - calm\n"
    hashes = set()
    for extra in ("", ", weights: [2, 1]", ", definition: great wonder", ", dynamics: [The jaw drops slowly.]"):
        path.write_text(text % extra)
        hashes.add(load_label_set(path).sha256)
    assert len(hashes) == 4
    assert load_label_set(path).labels[0].dynamics == ("The jaw drops slowly.",)
    inherits = "name: mine\nlabels:\n  - {name: joy, from: basic/happiness, weights: [1]}\n"
    path.write_text(inherits)
    with pytest.raises(PromptError, match="1 weights for 0 descriptors"):
        load_label_set(path)
    path.write_text(text % ", weights: [0, 0]")
    with pytest.raises(PromptError, match="not all 0"):
        load_label_set(path)


def test_shipped_sets_keep_their_hashes_where_they_use_no_later_key() -> None:
    for name in shipped_sets():
        later = [(label.definition, label.dynamics, label.weights) for label in load_label_set(name).labels]
        assert name == "graded8" or not any(any(extra) for extra in later)
