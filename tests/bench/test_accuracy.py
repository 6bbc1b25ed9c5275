"""Figures of a backbone on a set of faces, words in the place of class names, classes left out."""

import json

import numpy as np
import pytest

from vlfer.bench.accuracy import encode_faces, measure, row_figures, spearman_rows, wilson
from vlfer.bench.faces import load_faces, parse_address
from vlfer.bench.leave_out import find_models, leave_out_report
from vlfer.bench.words import ClassTexts, load_texts, prototypes, unmet, words_report
from vlfer.config import resource_dir
from vlfer.errors import DataError, PromptError
from vlfer.metrics import vote_agreement
from vlfer.models import bundled
from vlfer.text.bank import TextBank
from vlfer.types import Embedding


@pytest.fixture(scope="module")
def faces(votes_file):
    return load_faces(parse_address(f"own={votes_file}"))


@pytest.fixture(scope="module")
def bank(tiny_backbone):
    return TextBank(tiny_backbone)


def test_a_perfect_and_sure_answer_has_perfect_figures(faces):
    found = measure(np.eye(8, dtype=np.float32)[faces.truth], faces, samples=50)
    assert (found["war"], found["uar"], found["ece"], found["brier"], found["nll"]) == (1, 1, 0, 0, 0)
    assert found["interval"]["war"] == [1, 1]
    assert found["class_n"] == dict.fromkeys(faces.labels.names, 8)


def test_figures_of_a_guess_by_hand(faces):
    uniform = np.full((64, 8), 1 / 8, np.float32)
    uniform[:, 0] += 1e-4  # always the first class
    found = measure(uniform, faces, samples=50)
    assert found["war"] == found["uar"] == 0.125
    assert found["nll"] == pytest.approx(np.log(8), abs=1e-3)
    assert found["brier"] == pytest.approx(7 / 8, abs=1e-3)
    low, high = found["interval"]["war"]
    assert low < 0.125 < high


def test_spearman_is_that_of_metrics(faces):
    probability = np.random.default_rng(3).dirichlet(np.ones(8), 64).astype(np.float32)
    assert np.mean(row_figures(probability, faces)["spearman"]) == pytest.approx(
        vote_agreement(probability, faces.votes)
    )
    assert spearman_rows(faces.votes[:5], faces.votes[:5]) == pytest.approx(np.ones(5))
    assert spearman_rows(np.ones((2, 8), np.float32), faces.votes[:2]) == pytest.approx(np.zeros(2))


def test_wilson_interval():
    assert wilson(0, 5)[0] == 0
    assert 0.3 < wilson(0, 5)[1] < 0.6
    low, high = wilson(500, 1000)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 1000), abs=1e-3)


class _OneAxisAClass:
    """Faces and words as axes: every class name and its own texts lie on the axis of the class."""

    space = "axes"

    def __init__(self, meaning):
        self.meaning = meaning

    def encode(self, sentences):
        rows = [next(i for word, i in self.meaning.items() if word in s) for s in sentences]
        return Embedding(np.eye(8, dtype=np.float32)[rows], self.space)


def _texts(faces, *, wrong=False):
    words = [f"{name} {k}" for name in faces.labels.names for k in ("xa", "xb")]
    classes = [name for name in faces.labels.names for _ in range(2)]
    meaning = {f" {k}": 0 for k in ()} | {word: faces.labels.index(c) for word, c in zip(words, classes, strict=True)}
    if wrong:  # both texts of happiness mean sadness
        meaning |= {w: faces.labels.index("sadness") for w in words if w.startswith("happiness")}
    return ClassTexts("made up", tuple(words), ("word",) * len(words), tuple(classes)), meaning


def _axes(faces, meaning):
    meaning = dict(meaning)
    for label in faces.labels.labels:
        for text in (*label.descriptors, *label.synonyms, label.name):
            meaning.setdefault(text, faces.labels.index(label.name))
    return _OneAxisAClass(meaning)


@pytest.mark.parametrize("wrong", [False, True])
def test_words_that_mean_the_class_cost_nothing_and_wrong_ones_cost_their_class(faces, wrong):
    texts, meaning = _texts(faces, wrong=wrong)
    images = Embedding(np.eye(8, dtype=np.float32)[faces.truth], "axes")
    report = words_report(None, _axes(faces, meaning), images, faces, texts, draws=4, ensemble="name", show_texts=True)
    assert report["label_set"]["war"] == 1
    single = report["word"]["one_class_at_a_time"]
    place = faces.labels.names.index("happiness")
    if not wrong:
        assert report["word"]["loss_against_label_set"] == single["mean_loss"] == 0
        assert report["word"]["nearest_class"]["right"] == 1
        return
    assert report["word"]["recall"][place] < 0.5
    assert report["word"]["loss_against_label_set"] >= 12
    assert report["word"]["nearest_class"]["sent_to"]["happiness"] == {"sadness": 2}
    assert single["per_class"]["happiness"]["mean_loss"] >= 12
    assert single["per_class"]["fear"]["mean_loss"] == 0
    assert {row["text"] for row in single["texts"] if row["loss"] > 0} == {"happiness xa", "happiness xb"}


def test_each_text_is_drawn_as_often_and_a_seed_repeats(faces, tiny_backbone, bank):
    images = encode_faces(tiny_backbone, faces)
    texts, _ = _texts(faces)
    one, again = (words_report(tiny_backbone, bank, images, faces, texts, draws=6, seed=2) for _ in range(2))
    assert one == again
    assert one["word"]["texts_per_class"] == [2] * 8
    assert "texts" not in one["word"]["one_class_at_a_time"]
    vectors = prototypes(bank, faces.labels, ensemble="all")
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(8), abs=1e-5)


def test_tables_of_texts(tmp_path, faces, bank, tiny_backbone):
    path = tmp_path / "w.tsv"
    path.write_text("class\tkind\ttext\nfear\tword\tdread, cold\n")
    assert load_texts(str(path)).texts == ("dread, cold",)
    held_out = load_texts("heldout")
    assert set(held_out.kinds) == {"word", "phrase"}
    assert set(held_out.classes) == set(faces.labels.names)
    images = encode_faces(tiny_backbone, faces)
    with pytest.raises(PromptError, match="no word for neutral"):
        words_report(tiny_backbone, bank, images, faces, load_texts(str(path)))
    path.write_text("text,class\n")
    with pytest.raises(PromptError, match="Expected the columns class, kind, text"):
        load_texts(str(path))
    path.write_text("class\tkind\ttext\nfear\tword\n")
    with pytest.raises(PromptError, match="line 2"):
        load_texts(str(path))
    with pytest.raises(PromptError, match="do not exist"):
        load_texts("nowhere.tsv")


@pytest.mark.parametrize("name", ["dev", "test"])
def test_blind_lists_name_every_class_by_words_and_phrases_but_its_own(name):
    texts = load_texts(str(resource_dir("prompts") / "blind" / f"{name}.tsv"))
    pairs = set(zip(texts.classes, texts.kinds, strict=True))
    assert pairs == {(c, k) for c in set(texts.classes) for k in ("word", "phrase")}
    assert len(set(texts.classes)) == 8
    assert not set(texts.texts) & set(texts.classes)
    assert len(set(texts.texts)) == len(texts.texts)


def test_unmet_texts_are_those_that_no_training_holds():
    kinds, classes = ("word", "phrase", "word", "phrase"), ("happiness", "happiness", "anger", "anger")
    texts = ClassTexts("mine", ("Happy", "zorbling with mirth", "zorbled", "grumbling at zorbs"), kinds, classes)
    left = ClassTexts("mine (unmet)", ("zorbling with mirth", "grumbling at zorbs"), ("phrase",) * 2, classes[::2])
    assert unmet(texts) == left
    with pytest.raises(PromptError, match="names no class that way"):
        unmet(ClassTexts("mine", ("happy", "zorbled"), ("word", "word"), classes[::2]))


@pytest.fixture
def without_fear(tmp_path, monkeypatch):
    """A copy of the bundled model whose card says that it never saw fear."""
    folder = tmp_path / "without-fear" / "model"
    folder.mkdir(parents=True)
    for name in (bundled.CONFIG_NAME, bundled.WEIGHTS_NAME):
        (folder / name).write_bytes((bundled.BUNDLED_DIR / name).read_bytes())
    card = json.loads((bundled.BUNDLED_DIR / bundled.CARD_NAME).read_text())
    card["recipe"]["data"]["leave_out"] = ["fear"]
    (folder / bundled.CARD_NAME).write_text(json.dumps(card))
    return folder


@pytest.mark.slow
def test_the_class_left_out_is_scored_on_all_its_faces(without_fear, votes_file, jpeg_file):
    models = find_models(str(without_fear.parents[1] / "without-*" / "model"))
    assert models == {"fear": without_fear}
    report = leave_out_report(models, [parse_address(f"own={votes_file}"), parse_address(f"lfw={jpeg_file}")])
    own, lfw = report["rows"]
    assert (own["n"], lfw["n"]) == (8, 1)
    assert own["chance"] == 0.125
    assert sum(own["sent_to"].values()) == 8
    assert own["recall"] == own["sent_to"].get("fear", 0) / 8
    assert report["mean_recall"] == {"own": own["recall"], "lfw": lfw["recall"]}


def test_models_that_saw_everything_are_refused(tmp_path):
    with pytest.raises(DataError, match="trained with every class"):
        find_models(str(bundled.BUNDLED_DIR))
    with pytest.raises(DataError, match="No model folder fits"):
        find_models(str(tmp_path / "*"))


@pytest.mark.slow
def test_command_measures_and_writes(run, tiny_backbone_name, votes_file, jpeg_file, tmp_path):
    result = run(
        "bench", "accuracy", "--backbone", tiny_backbone_name, "--data", f"own={votes_file}", "--data",
        f"lfw={jpeg_file}", "--words", "heldout", "--draws", 2, "--bootstrap", 50, "--out", tmp_path / "a.json",
        "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "a.json").read_text())
    assert [row["set"] for row in report["results"]] == ["own", "lfw"]
    assert report["results"][1]["spearman"] is None
    assert report["results"][0]["spearman"] is not None
    assert {"word", "phrase"} < set(report["words"][0])
    assert "own: 64 faces (all)" in result.stdout
    assert "heldout: phrases" in result.stdout


def test_a_backbone_that_learned_the_held_out_words_says_so():
    from vlfer.bench import report

    assert report._held_out_words(None)
    assert report._held_out_words({"recipe": {"text": {"lora_rank": 16}}})
    assert not report._held_out_words({"recipe": {"text": {"hold_out": False}}})


def test_mistakes_are_told(run, votes_file):
    twice = run("bench", "accuracy", "--data", f"a={votes_file}", "--data", f"a={votes_file}")
    assert twice.exit_code == 2
    assert "Two sets are called 'a'" in twice.stderr
    peer = run("bench", "accuracy", "--data", f"a={votes_file}", "--peers", "ferr")
    assert peer.exit_code == 2
    assert "Did you mean 'fer'" in peer.stderr
