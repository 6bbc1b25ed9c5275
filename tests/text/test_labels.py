"""Label sets: by name, from a file, typed; and every way to get them wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfer.errors import PromptError
from vlfer.text.labels import (
    compound_label,
    labels_from_words,
    load_label_set,
    load_orders,
    non_latin,
    parse_labels,
    resolve_label_spec,
    shipped_sets,
)


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# Typed labels


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("awe, polite smile, about to cry", ("awe", "polite smile", "about to cry")),
        ("awe; pride\nrelief", ("awe", "pride", "relief")),
        ("  awe ,\tpolite   smile  ", ("awe", "polite smile")),
        ('"relief, after a scare", calm', ("relief, after a scare", "calm")),
        ("\u201crelief, at last\u201d; calm", ("relief, at last", "calm")),
        ("doesn't care, calm", ("doesn't care", "calm")),
        ("awe,\npride,\r\nrelief,\n", ("awe", "pride", "relief")),
        ("awe\n\n\npride", ("awe", "pride")),
        ("awe", ("awe",)),
    ],
)
def test_typed_labels_are_split_and_kept_as_typed(text: str, names: tuple[str, ...]) -> None:
    assert parse_labels(text).names == names


def test_typed_label_gets_nothing_it_was_not_given() -> None:
    typed = parse_labels("awe, boredom").labels[0]
    assert typed.name == "awe"
    assert (typed.descriptors, typed.synonyms, typed.negatives, typed.aliases) == ((), (), (), ())
    shipped = load_label_set("open")
    assert shipped.labels[shipped.index("awe")].descriptors


@given(st.lists(st.from_regex(r"[a-z]{2,8}( [a-z]{2,8})?", fullmatch=True), min_size=1, max_size=6, unique=True))
def test_joining_and_parsing_returns_the_words(words: list[str]) -> None:
    for separator in (", ", ";", "\n", " ,\n"):
        assert parse_labels(separator.join(words)).names == tuple(words)
    assert parse_labels(", ".join(f'"{word}"' for word in words)).names == tuple(words)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("empty", "--labels")),
        ("   \n ", ("empty",)),
        ("awe,, pride", ("Label 2", "empty")),
        (", awe", ("Label 1", "empty")),
        ("awe, ;pride", ("Label 2", "empty")),
        ('awe, ""', ("Label 2", "empty")),
        ('awe, "  "', ("Label 2", "empty")),
        ("awe, pride, AWE", ("'AWE'", "twice")),
        ("polite smile, polite-smile", ("polite-smile", "twice")),
        ('awe, "polite smile', ("quote", "polite smile")),
        ("awe, 123", ("Label 2", "'123'", "no letter")),
        ("awe, \U0001f600", ("Label 2", "no letter")),
        ("awe, " + "very " * 500 + "sad", ("Label 2", "501 words", "60 words", "very very")),
        ("awe, " + "x" * 600, ("Label 2", "600 characters")),
    ],
)
def test_bad_typed_labels_are_named(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(PromptError) as caught:
        parse_labels(text)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert len(message) < 500


def test_sixty_words_are_still_a_label() -> None:
    assert len(parse_labels(" ".join(["so"] * 59 + ["sad"]))) == 1
    with pytest.raises(PromptError, match="61 words"):
        parse_labels(" ".join(["so"] * 60 + ["sad"]))


def test_control_characters_do_not_reach_the_text_tower() -> None:
    assert labels_from_words(["polite\x00 \x1bsmile"]).names == ("polite smile",)


def test_words_of_a_list_may_hold_commas() -> None:
    assert labels_from_words(["relief, at last", "calm"]).names == ("relief, at last", "calm")
    with pytest.raises(PromptError, match="empty"):
        labels_from_words([])


@pytest.mark.parametrize("word", ["радость", "喜び", "χαρά", "فرح", "mixed радость"])
def test_other_scripts_are_taken_and_flagged(word: str) -> None:
    labels = parse_labels(f"awe, {word}, café, naïve Überraschung")
    assert labels.names[1] == word
    assert non_latin(labels) == (word,)
    assert non_latin(["awe", word]) == (word,)


# Shipped sets


def test_shipped_sets_do_not_list_the_libraries() -> None:
    sets = shipped_sets()
    assert list(sets) == sorted(sets)
    assert "ekman7" in sets
    assert not {"basic", "micro"} & set(sets)


@pytest.mark.parametrize("spec", ["casme2-5", "CASME2_5", " casme2-5 "])
def test_shipped_name_is_forgiving_about_case_and_dashes(spec: str) -> None:
    assert load_label_set(spec).name == "casme2-5"


def test_unknown_set_suggests_the_near_one_and_lists_all() -> None:
    with pytest.raises(PromptError) as caught:
        load_label_set("ekmann7")
    message = str(caught.value)
    assert "'ekmann7'" in message
    assert "Did you mean 'ekman7'?" in message
    assert all(name in message for name in shipped_sets())


def test_inherited_words_equal_written_ones() -> None:
    basic, ekman = load_label_set("basic"), load_label_set("ekman7")
    for label in ekman.labels:
        assert label == basic.labels[basic.index(label.name)]
    open_set = load_label_set("open")
    assert open_set.names[open_set.index("irritated")] == "anger"
    assert "tired" not in open_set.labels[open_set.index("sadness")].synonyms


def test_number_outside_an_order_is_told() -> None:
    order = load_orders("dfew7")["dfew"]
    with pytest.raises(PromptError, match=r"number 0 is outside 1\.\.7"):
        order.name(0)
    with pytest.raises(PromptError, match="number 8"):
        order.name(8)


# The argument of --labels


def test_one_argument_means_a_set_a_file_or_words(tmp_path: Path) -> None:
    path = write(tmp_path, "name: mine, too\nlabels: [awe, pride]\n", "a, b.yaml")
    assert resolve_label_spec("ferplus8").name == "ferplus8"
    assert resolve_label_spec(path).names == ("awe", "pride")
    assert resolve_label_spec(str(path)).names == ("awe", "pride")
    assert resolve_label_spec("awe, pride").names == ("awe", "pride")
    assert resolve_label_spec(["awe", "pride"]).names == ("awe", "pride")
    given_set = parse_labels("awe, pride")
    assert resolve_label_spec(given_set) is given_set
    with pytest.raises(PromptError, match="ferplus8"):
        resolve_label_spec("ferplus")
    with pytest.raises(PromptError, match="empty"):
        resolve_label_spec("  ")


# Files

FILE = """
name: mine
origin: me
labels:
  - bliss
  - {name: happy, from: basic/happiness, aliases: ["5"], negatives: [a frown]}
  - name: shock
    synonyms: [jolt]
    descriptors: ["The jaw drops: nothing else moves."]
orders:
  ours: {base: 3, names: [shock, bliss, happy]}
"""


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = write(tmp_path, FILE)
    labels = load_label_set(path)
    happy = labels.labels[1]
    assert labels.names == ("bliss", "happy", "shock")
    assert labels.origin == "Written by me."
    assert happy.negatives == ("a frown",)
    assert happy.descriptors == load_label_set("ekman7").labels[3].descriptors
    assert [labels.index(word) for word in ("5", "HA", "happiness", "joy", "jolt")] == [1, 1, 1, 1, 2]
    assert load_orders(path)["ours"].name(5) == "happy"
    changed = write(tmp_path, FILE.replace("nothing else moves", "all moves"), "other.yaml")
    assert load_label_set(changed).sha256 != labels.sha256


def test_inherited_word_yields_to_a_label_that_claims_it(tmp_path: Path) -> None:
    path = write(tmp_path, "name: m\nlabels: [joy, {name: happiness, from: basic/happiness}]\n")
    labels = load_label_set(path)
    assert labels.names[labels.index("Joy")] == "joy"
    assert "joy" not in labels.labels[1].synonyms


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("empty", "labels")),
        ("- awe\n- pride\n", ("a list", "name and labels")),
        ("name: m\nlabels: []\n", ("key 'labels'",)),
        ("labels: [awe]\n", ("key 'name'", "required")),
        (
            "name: m\nlabels: [awe, {name: pride, descriptor: [x]}]\n",
            ("label 'pride'", "key 'descriptor'", "'descriptors'"),
        ),
        ("name: m\nlables: [awe]\n", ("key 'lables'", "'labels'", "required")),
        ("name: m\nlabels: [{name: awe, descriptors: [ok, 3]}]\n", ("label 'awe'", "key 'descriptors[2]'", "string")),
        ("name: m\nlabels: [{name: awe, descriptors: wide eyes}]\n", ("label 'awe'", "key 'descriptors'", "list")),
        ("name: m\nlabels: [{name: awe, descriptors: ['']}]\n", ("label 'awe'", "key 'descriptors[1]'")),
        ("name: m\nlabels: [{descriptors: [x]}]\n", ("label 1", "key 'name'")),
        ("name: m\nlabels: [awe, yes]\n", ("label 2", "key 'name'", "string")),
        ("name: m\nlabels: [{name: awe, action_units: [smile]}]\n", ("label 'awe'", "key 'action_units[1]'")),
        ("name: m\nlabels: [awe, Awe]\n", ("'Awe'", "twice")),
        ("name: m\nlabels: ['---']\n", ("'---'", "letter")),
        ("name: m\nname: n\nlabels: [awe]\n", ("'name'", "twice", "line 2")),
        ("name: m\nlabels:\n  - name: awe\n descriptors: [x]\n", ("not valid YAML", "line")),
        ("name: m\nlabels: [{name: awe, from: basic/hapiness}]\n", ("label 'awe'", "key 'from'", "'happiness'")),
        ("name: m\nlabels: [{name: awe, from: basik/happiness}]\n", ("label 'awe'", "key 'from'", "'basic'")),
        ("name: m\nlabels: [{name: awe, from: basic}]\n", ("key 'from'", "file/label")),
        ("name: m\nlabels: [{name: a_b, parts: [anger, glee]}]\n", ("label 'a_b'", "key 'parts'", "'glee'")),
        (
            "name: m\nlabels: [{name: awe, synonyms: [wow]}, {name: pride, aliases: [Wow]}]\n",
            ("already means", "'pride'"),
        ),
        ("name: m\nlabels: [awe, {name: pride, synonyms: [awe]}]\n", ("label 'pride'", "'synonyms'", "'awe'")),
        ("name: m\nlabels: [a, b]\norders: {x: {base: 0, names: [a]}}\n", ("order 'x'", "Missing: ['b']")),
        ("name: m\nlabels: [a, b]\norders: {x: {base: 0, names: [a, b, b]}}\n", ("order 'x'", "3 names for 2")),
        ("name: m\nlabels: [a, b]\norders: {x: {bas: 0, names: [a, b]}}\n", ("order 'x'", "key 'bas'", "'base'")),
    ],
)
def test_bad_files_are_told_with_file_label_and_key(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(PromptError) as caught:
        load_label_set(path)
    message = str(caught.value)
    assert "mine.yaml" in message
    assert all(part in message for part in parts), message


def test_long_sentence_in_a_file_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, f"name: m\nlabels: [{{name: awe, descriptors: [{'so ' * 61}]}}]\n")
    with pytest.raises(PromptError, match=r"label 'awe', key 'descriptors'.*61 words"):
        load_label_set(path)


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "name: 3\ncolour: red\nlabels: [{name: awe, synonym: [x]}]\n")
    with pytest.raises(PromptError) as caught:
        load_label_set(path)
    assert all(part in str(caught.value) for part in ("'name'", "'colour'", "'synonym'"))


def test_missing_folder_and_binary_files_are_told(tmp_path: Path) -> None:
    write(tmp_path, "name: m\nlabels: [awe]\n", "waiting-room.yaml")
    with pytest.raises(PromptError, match=r"no prompt file.*waiting-room\.yaml"):
        load_label_set(tmp_path / "waiting-rom.yaml")
    with pytest.raises(PromptError, match="cannot be read"):
        load_label_set(tmp_path)
    (tmp_path / "photo.yaml").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    with pytest.raises(PromptError, match="not a text file"):
        load_label_set(str(tmp_path / "photo.yaml"))
    with pytest.raises(PromptError, match="null byte"):
        load_label_set("a\0b.yaml")


# Mixtures


def test_mixture_takes_its_parts_in_turn_and_in_the_order_of_the_set() -> None:
    base = load_label_set("mafw11")
    fear, surprise = (base.labels[base.index(name)] for name in ("fear", "surprise"))
    label = compound_label("surprise_fear", base)
    assert label.name == "fear_surprise"
    assert label.parts == ("fear", "surprise")
    assert "surprise_fear" in label.aliases
    assert label.descriptors[:3] == (fear.descriptors[0], surprise.descriptors[0], fear.descriptors[1])
    assert set(label.descriptors) == {*fear.descriptors, *surprise.descriptors}
    assert compound_label("fear_surprise", base).descriptors == label.descriptors
    assert compound_label("afraid_Surprised", base).name == "fear_surprise"


@pytest.mark.parametrize("name", load_label_set("mafw43").names[11:])
def test_every_mixture_of_mafw_can_be_read_from_the_eleven(name: str) -> None:
    assert compound_label(name, load_label_set("mafw11")).name == name


@pytest.mark.parametrize(
    ("name", "part"),
    [("anger", "not a mixture"), ("_", "not a mixture"), ("anger_angry", "twice"), ("anger_glee", "'glee'")],
)
def test_bad_mixtures(name: str, part: str) -> None:
    with pytest.raises(PromptError, match=part):
        compound_label(name, load_label_set("mafw11"))
