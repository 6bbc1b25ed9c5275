"""What the check of words finds, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from vlfer.text.check import RULES, check_words
from vlfer.text.labels import labels_from_words, load_label_set, shipped_sets
from vlfer.text.rules import actions_in, excluded_units
from vlfer.types import Embedding, Label, LabelSet

GOOD = (
    "The lip corners are drawn back and up.",
    "Cheeks lifted, creases beside the eyes.",
    "A grin that bares the upper teeth.",
    "Lower lids pushed up below relaxed brows.",
)


def label(name: str = "happiness", *extra: str, **keys: object) -> Label:
    return Label(name, descriptors=(*GOOD, *extra), **keys)  # type: ignore[arg-type]


def rules(*labels: Label, **options: object) -> list[tuple[str, str]]:
    return [(f.rule, f.label) for f in check_words(LabelSet(labels), **options)]  # type: ignore[arg-type]


def test_sound_words_have_no_finding() -> None:
    assert rules(label()) == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("An old woman with a smile.", "identity"),
        ("His mouth is open.", "identity"),
        ("A western smile with teeth.", "identity"),
        ("The face of someone who feels wonderful.", "feeling"),
        ("The mouth opens because of good news.", "feeling"),
        ("A sunny day after rain.", "not-visible"),
        ("A face full of happiness.", "names-label"),
        ("The corners of the mouth sink far down.", "facs"),
        ("A grin that bares the upper teeth!", "duplicate"),
        ("...", "empty"),
    ],
)
def test_a_bad_descriptor_is_found_by_its_rule_and_told_what_to_do(text: str, rule: str) -> None:
    found = check_words(LabelSet((label("happiness", text),)))
    assert [f.rule for f in found if f.rule != "not-visible" or rule == "not-visible"] == [rule]
    assert found[0].why
    assert found[0].fix
    assert rule in RULES


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sadness", "A broad smile over wet cheeks."),
        ("sadness", "The lip corners are raised."),
        ("anger", "Both brows are raised in an arch."),
        ("surprise", "The brows are knitted above parted lips."),
        ("neutral", "The nose is wrinkled all over."),
        ("fear", "Eyes wide, with the corners of the mouth curled up."),
    ],
)
def test_what_facs_excludes_is_an_error(name: str, text: str) -> None:
    (found,) = [f for f in check_words(LabelSet((label_of(name, text),))) if f.rule == "facs"]
    assert found.severity == "error"
    assert "AU" in found.why


def label_of(name: str, text: str) -> Label:
    return Label(name, descriptors=("Eyes one way.", "Mouth another way.", "Chin a third way.", text))


@pytest.mark.parametrize(
    "text",
    [
        "No smile, and the lip corners are not raised.",
        "The mouth never turns into a broad smile.",
        "Lips pressed together without a wrinkled nose.",
    ],
)
def test_an_action_under_a_negation_is_not_affirmed(text: str) -> None:
    assert actions_in(text) == ()


def test_a_unit_that_the_label_lists_is_not_excluded() -> None:
    assert "12" in excluded_units(Label("grief"))
    assert "12" not in excluded_units(Label("grief", action_units=("AU12", "AU15")))
    assert excluded_units(Label("a bitter smile", action_units=("AU12", "AU15"))) == frozenset()
    assert excluded_units(Label("my word", action_units=("AU12",))) == {"15"}


def test_a_mixture_excludes_only_what_all_its_parts_exclude() -> None:
    mixture = Label("happily surprised", parts=("happiness", "surprise"))
    assert excluded_units(mixture) == {"15", "9"}
    assert excluded_units(Label("sad joy", parts=("sadness", "my own word"))) == frozenset()


def test_a_negative_that_describes_the_label_itself() -> None:
    assert rules(label(action_units=("AU12",), negatives=("lip corners raised", "tears"))) == [
        ("negative", "happiness")
    ]


def test_a_sentence_of_two_labels() -> None:
    found = rules(label(), label("delight", "Something else on the mouth."))
    assert found == [("duplicate", "delight")] * len(GOOD)


def test_another_label_in_a_sentence_unless_it_is_something_to_be_seen() -> None:
    described = label("relief", "Worry leaves the forehead, and a pout remains.")
    others = (Label("worry", descriptors=EYES), Label("pout", descriptors=MOUTH))
    assert rules(described, *others) == [("names-other", "relief")]


EYES = tuple(f"Eyes turned {way}." for way in ("left", "right", "up", "aside"))
MOUTH = tuple(f"Mouth drawn {way}." for way in ("left", "right", "up", "aside"))


def test_few_descriptors_and_other_scripts_are_warnings() -> None:
    found = check_words(labels_from_words(["喜び", "awe"]))
    assert [(f.rule, f.severity) for f in found] == [("few", "warning"), ("script", "warning"), ("few", "warning")]


def test_too_long_names_the_tower_and_its_limit() -> None:
    def count(sentences: Sequence[str]) -> tuple[list[int], int]:
        return [len(s.split()) + 2 for s in sentences], 10

    long = "The mouth is open and the eyes are wide under two brows."
    (found,) = check_words(LabelSet((label("x y", long),)), counters={"tiny": count})
    assert (found.rule, found.text) == ("too-long", long)
    assert "tiny reads 10 tokens, and it has 14" in found.why


class MadeBank:
    """Sentences about a mouth point one way, those about eyes the other; numbers turn them a little."""

    def encode(self, sentences: Sequence[str]) -> Embedding:
        rows = []
        for text in sentences:
            angle = (0.0 if "Mouth" in text else 1.5) + 0.02 * len(text)
            rows.append([np.cos(angle), np.sin(angle)])
        return Embedding(np.array(rows, np.float32), "made")


def test_a_sentence_that_reads_as_another_label() -> None:
    strayed = "Mouth set hard and straight across."
    one = Label("one", descriptors=(*EYES, strayed))
    two = Label("two", descriptors=MOUTH)
    found = check_words(LabelSet((one, two)), bank=MadeBank(), temperature=0.05)
    assert [(f.label, f.text) for f in found if f.rule == "reads-as-other"] == [("one", strayed)]


def test_near_duplicates_of_two_labels_but_not_of_a_mixture_and_its_part() -> None:
    one, two = Label("one", descriptors=MOUTH), Label("two", descriptors=tuple(f"{t} " for t in MOUTH))
    assert any(f.rule == "near-duplicate" for f in check_words(LabelSet((one, two)), bank=MadeBank()))
    mixture = Label("two", descriptors=two.descriptors, parts=("one", "three"))
    assert not any(f.rule == "near-duplicate" for f in check_words(LabelSet((one, mixture)), bank=MadeBank()))


@pytest.mark.parametrize("name", shipped_sets())
def test_shipped_words_have_no_error(name: str) -> None:
    found = check_words(load_label_set(name))
    assert [f for f in found if f.severity == "error"] == []
    assert [f for f in found if f.rule in ("feeling", "not-visible", "few", "script")] == []


def test_five_hundred_labels_are_checked() -> None:
    found = check_words(labels_from_words([f"look number {i}" for i in range(500)]))
    assert {f.rule for f in found} == {"few"}
    assert len(found) == 500
