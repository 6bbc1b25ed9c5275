"""Wordings are ranked on rows for choosing and the winner is measured on the test rows, once."""

from dataclasses import replace

import numpy as np
import pytest

from vlfer.errors import ConfigError, DataError
from vlfer.evaluation.compare import Wording, check_same_classes, compare_wordings, divide
from vlfer.evaluation.embed import EmbeddingStore
from vlfer.evaluation.encode import Failure, encode_rows
from vlfer.evaluation.manifest import Manifest, Row
from vlfer.evaluation.media import Recipe
from vlfer.evaluation.run import Words
from vlfer.types import Embedding, Label, LabelSet

CLASSES = ("anger", "sadness", "neutral")
RECIPE = Recipe(size=16, faces="whole")


def manifest_of(fake, folder, *, n=60, **columns):
    rows = []
    for i in range(n):
        path = fake.picture(folder / f"{i}.png", i % 3, mark=i)
        rows.append(Row(str(path), CLASSES[i % 3], **{name: value(i) for name, value in columns.items()}))
    return Manifest(tuple(rows))


def wording(encoder, fake, colours, *, name, classes=CLASSES):
    """A wording whose class c has the colour of class ``colours[c]``."""
    labels = LabelSet(tuple(Label(c) for c in classes), name=name)
    pixels = np.stack([np.full((2, 2, 3), fake.colour(c), np.uint8) for c in colours])
    vectors = type(encoder)(classes).encode_images(pixels).vectors
    words = Words(Embedding(vectors, encoder.space), np.arange(len(classes)), np.ones(len(classes), np.float32))
    return Wording(name, "name", labels, words, 0.1)


@pytest.fixture
def compare(fake, make_encoder, tmp_path):
    def go(manifest, colours, *, priors=(0.0,), by="uar", places=None):
        encoder = make_encoder(CLASSES)
        store = EmbeddingStore(tmp_path / "cache")
        encoded = encode_rows(manifest.rows, encoder=encoder, recipe=RECIPE, store=store)
        divisions, how = divide(manifest, contents=store.content_ids(manifest.rows))
        wordings = [wording(encoder, fake, c, name=name) for name, c in colours.items()]
        return compare_wordings(
            manifest, encoded.places if places is None else places(encoded.places), store=store, space=encoder.space,
            wordings=wordings, priors=priors, divisions=divisions, division=how, by=by,
        )  # fmt: skip

    return go


def test_the_winner_on_the_training_fold_is_reported_on_the_test_fold(compare, fake, tmp_path):
    manifest = manifest_of(fake, tmp_path, fold=lambda i: str(i % 2 + 1))
    result = compare(manifest, {"wrong": (1, 2, 0), "right": (0, 1, 2), "half": (0, 2, 1)})
    assert [c.set_name for c in result.ranking] == ["right", "half", "wrong"]
    assert [c.uar for c in result.ranking] == pytest.approx([1, 1 / 3, 0])
    assert {name: c.set_name for name, c in result.chosen.items()} == {"1": "right", "2": "right"}
    assert result.headline == {"war": 1.0, "uar": 1.0, "uf1": 1.0}
    assert sum(figures.n for figures in result.test.values()) == 60
    assert result.interval["war"] == (1.0, 1.0)


def test_test_rows_have_no_say(compare, fake, tmp_path):
    # In fold 1 one wording is right, in fold 2 the other. What is chosen for a fold is what its training part says.
    rows = []
    for i in range(60):
        fold = i // 30
        path = fake.picture(tmp_path / f"{i}.png", i % 3, mark=i)
        rows.append(Row(str(path), CLASSES[(i + fold) % 3], fold=str(fold + 1)))
    result = compare(Manifest(tuple(rows)), {"one": (0, 1, 2), "two": (2, 0, 1)})
    assert {name: c.set_name for name, c in result.chosen.items()} == {"1": "two", "2": "one"}
    assert result.headline["war"] == 0.0
    assert [c.uar for c in result.ranking] == pytest.approx([0.5, 0.5])


def test_prior_correction_saves_a_class_that_is_swallowed(compare, fake, tmp_path):
    manifest = manifest_of(fake, tmp_path, split=lambda i: "train" if i < 30 else "test")
    result = compare(manifest, {"right": (0, 1, 2)}, priors=(0.0, 1.0))
    assert {c.prior for c in result.ranking} == {0.0, 1.0}
    assert result.division == "chosen on the split 'train'"
    assert result.n_choose == {"": 30}


def test_prior_strength_changes_predictions_by_the_estimated_mean(fake, make_encoder, tmp_path):
    # Every face is nearest to class 0; class 1 is a little behind for its own rows only.
    labels = LabelSet((Label("a"), Label("b")), name="two")
    store = EmbeddingStore(tmp_path)
    towards = np.array([[1.0, 0.0], [0.8, 0.6]] * 20, np.float32)
    store.add("g", [(str(i), vector[None], "ok", "") for i, vector in enumerate(towards)])
    found = store.find("g", [str(i) for i in range(40)])
    places = [found[str(i)] for i in range(40)]
    rows = tuple(Row(f"{i}.png", "ab"[i % 2], split="train" if i < 20 else "test") for i in range(40))
    words = Words(Embedding(np.eye(2, dtype=np.float32), "s"), np.arange(2), np.ones(2, np.float32))
    manifest = Manifest(rows)
    divisions, how = divide(manifest, contents=[str(i) for i in range(40)])
    result = compare_wordings(
        manifest, places, store=store, space="s", wordings=[Wording("two", "name", labels, words, 0.5)],
        priors=(0.0, 1.0), divisions=divisions, division=how,
    )  # fmt: skip
    by_prior = {c.prior: c.uar for c in result.ranking}
    assert by_prior == {0.0: 0.5, 1.0: 1.0}
    assert result.chosen[""].prior == 1.0
    assert result.headline["uar"] == 1.0


def test_failed_rows_count_as_errors(compare, fake, tmp_path):
    manifest = manifest_of(fake, tmp_path, split=lambda i: "train" if i < 30 else "test")

    def lose(places):
        return [Failure("error", "X", "lost") if i >= 45 else place for i, place in enumerate(places)]

    assert compare(manifest, {"right": (0, 1, 2)}, places=lose).headline["war"] == 0.5


def test_divisions(fake, tmp_path):
    manifest = manifest_of(fake, tmp_path, n=40)
    contents = [str(i // 2) for i in range(40)]  # every content twice
    ((part,), how) = divide(manifest, contents=contents)
    assert "files" in how
    assert not {contents[i] for i in part.choose} & {contents[i] for i in part.test}
    assert sorted([*part.choose, *part.test]) == list(range(40))
    people = replace(manifest, rows=tuple(replace(r, subject=str(i % 8)) for i, r in enumerate(manifest.rows)))
    ((part,), how) = divide(people, contents=contents)
    assert "subjects" in how
    assert not {people.rows[i].subject for i in part.choose} & {people.rows[i].subject for i in part.test}
    with pytest.raises(DataError, match="too few"):
        divide(Manifest(manifest.rows[:1]), contents=["a"])


def test_sets_that_join_classes_are_refused(fake, tmp_path):
    manifest = manifest_of(fake, tmp_path, n=6)
    apart = LabelSet(tuple(Label(c) for c in CLASSES), name="apart")
    joined = LabelSet((Label("anger", aliases=("sadness",)), Label("neutral")), name="joined")
    check_same_classes(manifest, [apart, replace(apart, name="again")])
    with pytest.raises(DataError, match="divide the classes"):
        check_same_classes(manifest, [apart, joined])


def test_mistakes(compare, fake, tmp_path):
    manifest = manifest_of(fake, tmp_path, n=6, fold=lambda i: str(i % 2))
    with pytest.raises(ConfigError, match=r"strength is 3\.0"):
        compare(manifest, {"right": (0, 1, 2)}, priors=(3.0,))
    with pytest.raises(ConfigError, match="No strength"):
        compare(manifest, {"right": (0, 1, 2)}, priors=())
