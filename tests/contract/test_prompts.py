"""What every shipped prompt file promises."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from vlfer.config import resource_dir
from vlfer.text.labels import load_label_set, load_orders, shipped_sets
from vlfer.text.prompt_file import Origin, read_prompt_file
from vlfer.types import LabelSet

FILES = sorted(resource_dir("prompts").glob("*.yaml"))
SETS = shipped_sets()
BASIC_ORDER = [
    *("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
    *("contempt", "anxiety", "helplessness", "disappointment"),
]

EXPECTED = {
    "affectnet7": ["neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger"],
    "affectnet8": ["neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"],
    "casme2-5": ["happiness", "disgust", "repression", "surprise", "others"],
    "casme3-4": ["negative", "positive", "surprise", "others"],
    "casme3-7": ["happiness", "anger", "disgust", "fear", "sadness", "surprise", "others"],
    "dfew7": ["happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"],
    "ekman7": ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"],
    "fer2013": ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"],
    "ferplus8": ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"],
    "graded8": ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"],
    "mafw11": BASIC_ORDER,
    "micro3": ["negative", "positive", "surprise"],
    "mmew6": ["happiness", "anger", "surprise", "disgust", "fear", "sadness"],
    "rafdb7": ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"],
    "samm5": ["happiness", "anger", "contempt", "surprise", "others"],
}

# A descriptor speaks of what a face does, not of who it belongs to.
BANNED = re.compile(
    r"\b(m[ae]n|wom[ae]n|boys?|girls?|males?|females?|he|she|his|hers?|him|lad(y|ies)|gentlem[ae]n|guys?|mother|father"
    r"|young|old|elderly|child(ren)?|kids?|bab(y|ies)|adults?|teenagers?|aged?|years"
    r"|asian|african|european|caucasian|american|indian|hispanic|latin[oax]|arab|chinese|japanese|jewish|muslim"
    r"|black|brown|dark-skinned|light-skinned|race|ethnic\w*|gender\w*|beard\w*|make-?up|lipstick)\b",
    re.IGNORECASE,
)
SUBTLE = re.compile(r"\b(slight(ly)?|faint(ly)?|barest|hint|small|a little|a touch|mild|hardly|just)\b", re.IGNORECASE)
STRONG = re.compile(
    r"\b(hard|broad|wide|wide-?open|openly|deep|strong(ly)?|heart[yi]\w*|whole|huge|completely|scream\w*|clearly|high|tension)\b",
    re.IGNORECASE,
)

# Spellings met in the data sets, and the label they must find.
SPELLINGS = {
    "ekman7": {
        "anger": ["Angry", "AN", "anger", "ANG", "Anger"],
        "disgust": ["Disgust", "DI", "DIS", "disgusted", "Disgusted"],
        "fear": ["Fear", "FE", "AF", "FEA", "afraid", "Fearful"],
        "happiness": ["Happy", "HA", "HAP", "happy", "Happiness", "joy"],
        "sadness": ["Sad", "SA", "sad", "Sadness"],
        "surprise": ["Surprise", "SU", "surprised", "Surprised", "SUR"],
        "neutral": ["Neutral", "NE", "NEU", "neutrality", "neutral"],
    },
    "ferplus8": {"contempt": ["Contempt", "contempt"], "happiness": ["happy"], "neutral": ["Neutral"]},
    "dfew7": {"happy": ["1happy", "Happiness"], "fear": ["7fear"], "angry": ["4angry", "anger"], "sad": ["sadness"]},
    "fer2013": {"angry": ["anger"], "happy": ["happiness"], "sad": ["Sadness"]},
    "mafw43": {"anger_disgust": ["Anger_Disgust", "disgust_anger"], "fear_sadness_anxiety": ["anxiety_fear_sadness"]},
    "rafdb-compound11": {"happily surprised": ["Happily Surprised", "happily_surprised", "surprise_happiness"]},
    "micro3": {"negative": ["disgust", "repression", "ne", "Negative", "Contempt"], "positive": ["happiness", "po"]},
    "casme2-5": {"others": ["Other", "others"], "repression": ["Repression"]},
    "casme3-7": {"sadness": ["sad"], "happiness": ["happy"], "others": ["Others"]},
    "samm5": {"others": ["Other"], "anger": ["Anger"]},
}


@pytest.fixture(scope="module", params=SETS)
def label_set(request: pytest.FixtureRequest) -> LabelSet:
    return load_label_set(request.param)


def _plain(sentence: str) -> str:
    return " ".join(re.findall(r"[a-z']+", sentence.lower()))


def test_sets_that_are_promised_are_shipped_in_the_spelling_and_order_of_the_data_set() -> None:
    assert set(EXPECTED) | {"mafw43", "rafdb-compound11", "open"} == set(SETS)
    for name, names in EXPECTED.items():
        assert list(load_label_set(name).names) == names
    assert len(load_label_set("rafdb-compound11")) == 11


def test_every_label_has_enough_words(label_set: LabelSet) -> None:
    for label in label_set.labels:
        assert len(label.descriptors) >= 8, label.name
        assert len(label.negatives) >= 3, label.name
        assert len(label.synonyms) >= 1, label.name
        assert not label.parts or len(label.parts) >= 2


def test_no_two_labels_share_a_sentence(label_set: LabelSet) -> None:
    sentences = Counter(_plain(text) for label in label_set.labels for text in label.descriptors)
    assert [text for text, count in sentences.items() if count > 1] == []


def test_every_name_alias_and_synonym_finds_its_label(label_set: LabelSet) -> None:
    for i, label in enumerate(label_set.labels):
        for word in (label.name, *label.aliases, *label.synonyms):
            assert label_set.index(word) == i, (word, label.name)


def test_sentences_are_written_only_once_in_all_files() -> None:
    counts = Counter(
        _plain(text) for path in FILES for entry in read_prompt_file(path).labels for text in entry.descriptors or []
    )
    assert [text for text, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_sentences_fit_the_text_towers_and_speak_of_the_face_only(path: Path) -> None:
    for entry in read_prompt_file(path).labels:
        for text in entry.descriptors or []:
            assert 4 <= len(text.split()) <= 50, text
            assert text[0].isupper(), text
            assert text.endswith("."), text
            assert not BANNED.search(text), text
        for text in entry.negatives or []:
            assert 1 <= len(text.split()) <= 15, text
            assert not BANNED.search(text), text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_descriptors_rarely_say_the_name(path: Path) -> None:
    for entry in read_prompt_file(path).labels:
        own = entry.descriptors or []
        said = [text for text in own if re.search(rf"\b{re.escape(entry.name)}\b", text, re.IGNORECASE)]
        assert len(said) <= len(own) / 4, (entry.name, said)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_origin_tells_who_when_and_how_and_file_is_named_like_its_set(path: Path) -> None:
    file = read_prompt_file(path)
    assert file.name == path.stem
    assert file.title
    assert isinstance(file.origin, Origin)
    assert "language model" in file.origin.author
    assert file.origin.written
    assert file.origin.instructions
    if file.kind == "set":
        assert "language model" in load_label_set(path.stem).origin


def test_basic_library_is_rich_and_graded() -> None:
    for label in load_label_set("basic").labels:
        assert 12 <= len(label.descriptors) <= 16, label.name
        assert len({text.split()[0] for text in label.descriptors}) >= 6, label.name
        if label.name != "neutral":
            assert any(SUBTLE.search(text) for text in label.descriptors), label.name
            assert any(STRONG.search(text) for text in label.descriptors), label.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_sentences_of_a_label_do_not_all_begin_alike(path: Path) -> None:
    for entry in read_prompt_file(path).labels:
        first = Counter(text.split()[0] for text in entry.descriptors or [])
        assert all(count <= 0.8 * first.total() for count in first.values()), (entry.name, first)


def test_open_set_is_broad() -> None:
    names = load_label_set("open").names
    assert len(names) >= 80
    assert {"awe", "polite smile", "smirk", "boredom", "confusion", "pain", "about to cry", "pride", "relief"} <= set(
        names
    )
    assert set(BASIC_ORDER) <= set(names)


def test_mafw43_is_eleven_singles_and_thirty_two_mixtures_of_them() -> None:
    labels = load_label_set("mafw43").labels
    assert [label.name for label in labels[:11]] == BASIC_ORDER
    mixtures = labels[11:]
    assert len(mixtures) == 32
    for label in mixtures:
        assert label.name == "_".join(label.parts)
        assert set(label.parts) <= set(BASIC_ORDER)
        assert list(label.parts) == sorted(label.parts, key=BASIC_ORDER.index)
        for order in itertools.permutations(label.parts):
            assert load_label_set("mafw43").index("_".join(order)) == labels.index(label)


def test_rafdb_mixtures_name_their_parts() -> None:
    stems = {
        "happ": "happiness",
        "sad": "sadness",
        "fear": "fear",
        "ang": "anger",
        "disgust": "disgust",
        "surpris": "surprise",
    }
    for label in load_label_set("rafdb-compound11").labels:
        meant = {stems[next(stem for stem in stems if word.startswith(stem))] for word in label.name.split()}
        assert meant == set(label.parts), label.name


@pytest.mark.parametrize(
    ("set_name", "name", "word"),
    [(s, name, word) for s, table in SPELLINGS.items() for name, words in table.items() for word in words],
)
def test_spellings_of_the_data_sets_resolve(set_name: str, name: str, word: str) -> None:
    labels = load_label_set(set_name)
    assert labels.names[labels.index(word)] == name


def test_orders_are_permutations_of_the_names(label_set: LabelSet) -> None:
    for variant, order in load_orders(label_set.name).items():
        assert sorted(order.names) == sorted(label_set.names), variant


@pytest.mark.parametrize(
    ("set_name", "variant", "number", "name"),
    [
        ("dfew7", "dfew", 1, "happy"),
        ("dfew7", "dfew", 7, "fear"),
        ("dfew7", "dfew-rebased", 0, "happy"),
        ("fer2013", "fer2013", 3, "happy"),
        ("fer2013", "fer2013", 6, "neutral"),
        ("rafdb7", "rafdb", 1, "surprise"),
        ("rafdb7", "rafdb", 4, "happiness"),
        ("affectnet8", "affectnet", 7, "contempt"),
        ("affectnet7", "affectnet", 6, "anger"),
        ("ferplus8", "ferplus", 2, "surprise"),
        ("ferplus8", "ckplus", 2, "contempt"),
        ("rafdb-compound11", "rafdb-compound", 8, "fearfully surprised"),
        ("micro3", "megc2019", 1, "positive"),
    ],
)
def test_numbers_of_the_data_sets_mean_what_their_papers_say(
    set_name: str, variant: str, number: int, name: str
) -> None:
    assert load_orders(set_name)[variant].name(number) == name


def test_mafw_ships_three_different_orders() -> None:
    orders = load_orders("mafw11")
    assert len({tuple(order.names) for order in orders.values()}) == 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_yaml_round_trip_keeps_every_word(path: Path, tmp_path: Path) -> None:
    file = read_prompt_file(path)
    copy = tmp_path / path.name
    copy.write_text(
        yaml.safe_dump(file.model_dump(by_alias=True, exclude_none=True), allow_unicode=True, sort_keys=False),
        encoding="utf-8",
    )
    assert read_prompt_file(copy) == file
    assert load_label_set(copy).sha256 == load_label_set(path.stem).sha256
