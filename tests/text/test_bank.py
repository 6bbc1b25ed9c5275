"""The bank of sentence vectors, and the sentences of labels."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from vlfer.errors import PromptError
from vlfer.text import bank as bank_module
from vlfer.text.bank import TextBank, class_sentences, embed_labels
from vlfer.text.sentences import TEMPLATE_FAMILIES, word_form
from vlfer.types import Embedding, Label, LabelSet


class CountingEncoder:
    """Gives every sentence its own vector and counts what it was asked."""

    def __init__(self, space: str = "made/1/none") -> None:
        self.space = space
        self.asked: Counter[str] = Counter()

    def encode_texts(self, sentences: Sequence[str]) -> Embedding:
        self.asked.update(sentences)
        seeds = [int.from_bytes(f"{self.space}{s}".encode(), "little") % 2**32 for s in sentences]
        rows = np.stack([np.random.default_rng(seed).normal(size=8) for seed in seeds])
        return Embedding((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), self.space)


SENTENCES = ["awe", "a broad smile", "awe", "喜び", "about to cry"]


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


def _files(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.safetensors"))


def test_vectors_are_the_encoders(encoder: CountingEncoder, tmp_path: Path) -> None:
    expected = CountingEncoder().encode_texts(SENTENCES)
    found = TextBank(encoder, cache_dir=tmp_path).encode(SENTENCES)
    assert np.array_equal(found.vectors, expected.vectors)
    assert found.space == encoder.space
    assert encoder.asked == Counter(set(SENTENCES))  # each once, though one was asked for twice


def test_nothing_is_encoded_twice(encoder: CountingEncoder, tmp_path: Path) -> None:
    bank = TextBank(encoder, cache_dir=tmp_path)
    first = bank.encode(SENTENCES)
    bank.encode([*SENTENCES, "new"])
    assert max(encoder.asked.values()) == 1
    again = CountingEncoder()
    second = TextBank(again, cache_dir=tmp_path).encode(SENTENCES)
    assert not again.asked
    assert np.array_equal(first.vectors, second.vectors)


def test_spaces_do_not_mix(tmp_path: Path) -> None:
    one, other = CountingEncoder("a/1/none"), CountingEncoder("a/2/none")
    first = TextBank(one, cache_dir=tmp_path).encode(["awe"])
    second = TextBank(other, cache_dir=tmp_path).encode(["awe"])
    assert other.asked
    assert second.space == "a/2/none"
    assert not np.array_equal(first.vectors, second.vectors)


def test_file_of_another_space_is_not_believed(encoder: CountingEncoder, tmp_path: Path) -> None:
    TextBank(CountingEncoder("b/1/none"), cache_dir=tmp_path).encode(["awe"])
    TextBank(encoder, cache_dir=tmp_path).encode(["other"])
    foreign, mine = sorted(_files(tmp_path), key=lambda f: b"b/1/none" not in f.read_bytes())
    foreign.rename(mine.parent / foreign.name)
    found = TextBank(CountingEncoder(), cache_dir=tmp_path).encode(["awe"])
    assert np.array_equal(found.vectors, CountingEncoder().encode_texts(["awe"]).vectors)


def test_memory_only(encoder: CountingEncoder) -> None:
    bank = TextBank(encoder)
    assert np.array_equal(bank.encode(["awe"]).vectors, bank.encode(["awe"]).vectors)
    assert encoder.asked["awe"] == 1


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "text"])
def test_damaged_file_is_computed_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = TextBank(CountingEncoder(), cache_dir=tmp_path).encode(SENTENCES)
    (file,) = _files(tmp_path)
    content = bytearray(file.read_bytes())
    content[-3] ^= 0x01  # one bit of one number: still a unit vector within tolerance
    file.write_bytes(
        {"empty": b"", "truncated": bytes(content[:-40]), "flipped": bytes(content), "text": b"hello" * 99}[damage]
    )
    encoder = CountingEncoder()
    found = TextBank(encoder, cache_dir=tmp_path).encode(SENTENCES)
    assert np.array_equal(found.vectors, expected.vectors)
    assert encoder.asked
    assert "damaged" in caplog.text
    healed = CountingEncoder()
    TextBank(healed, cache_dir=tmp_path).encode(SENTENCES)
    assert not healed.asked


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_cache_that_cannot_be_written(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(bank_module, "write_atomically", fail)
    encoder = CountingEncoder()
    bank = TextBank(encoder, cache_dir=tmp_path)
    with caplog.at_level(logging.WARNING, "vlfer"):
        for sentence in ("one", "two", "one"):
            bank.encode([sentence])
    assert len(caplog.records) == 1  # told once, and the work goes on
    assert encoder.asked == Counter(one=1, two=1)


def test_cache_folder_that_is_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "blocked").write_text("x")
    bank = TextBank(CountingEncoder(), cache_dir=tmp_path / "blocked")
    assert len(bank.encode(SENTENCES)) == len(SENTENCES)
    assert len(caplog.records) == 1


def _fill(cache: str, start: int) -> None:
    bank = TextBank(CountingEncoder(), cache_dir=Path(cache))
    for i in range(start, start + 30):
        bank.encode([f"shared {i % 40}", f"own {i}"])


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fill, args=(str(tmp_path), start)) for start in (0, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    sentences = [f"own {i}" for i in range(50)] + [f"shared {i}" for i in range(40)]
    encoder = CountingEncoder()
    found = TextBank(encoder, cache_dir=tmp_path).encode(sentences)
    assert not encoder.asked  # nothing was lost
    assert np.array_equal(found.vectors, CountingEncoder().encode_texts(sentences).vectors)
    assert not [f for f in tmp_path.rglob("*") if f.name.startswith(".tmp")]


def test_threads_share_a_bank(encoder: CountingEncoder, tmp_path: Path) -> None:
    bank = TextBank(encoder, cache_dir=tmp_path)
    threads = [threading.Thread(target=bank.encode, args=([f"s {i}" for i in range(k, k + 20)],)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(encoder.asked.values()) == 1


def test_no_sentences(encoder: CountingEncoder) -> None:
    for nothing in ([], "awe"):
        with pytest.raises(PromptError):
            TextBank(encoder).encode(nothing)


@pytest.mark.parametrize(
    ("label", "form"),
    [
        ("happiness", "noun"), ("Anger", "noun"), ("a broad smile", "noun"), ("polite smile", "noun"), ("joy", "noun"),
        ("happy", "adjective"), ("bored", "adjective"), ("deeply worried", "adjective"), ("neutral", "adjective"),
        ("about to cry", "phrase"), ("just won the lottery", "phrase"), ("喜び", "phrase"), ("?!", "phrase"),
    ],
)  # fmt: skip
def test_word_form(label: str, form: str) -> None:
    assert word_form(label) == form


def test_sentences_read_as_english() -> None:
    assert "a photo of a face with an expression of happiness" in class_sentences("happiness")
    assert "an expression of a polite smile" in class_sentences("polite smile")
    assert "a photo of a person who looks happy" in class_sentences(Label("happy"))
    assert "the face of a person, about to cry" in class_sentences("about to cry")
    for label in ("happiness", "happy", "about to cry"):
        assert label in class_sentences(label)


def test_published_templates_are_word_for_word() -> None:
    assert class_sentences("about to cry", templates="name") == ("about to cry",)
    assert class_sentences("happy", templates="expression") == ("an expression of happy",)
    assert class_sentences("sad", templates="photo") == ("a photo of a face with an expression of sad",)


def test_own_templates() -> None:
    assert class_sentences("awe {x}", templates=["so much {}", "so much {}"]) == ("so much awe {x}",)
    for wrong in (["no place"], ["{} and {}"], [], "photoo"):
        with pytest.raises(PromptError):
            class_sentences("awe", templates=wrong)


@pytest.mark.parametrize("family", TEMPLATE_FAMILIES)
def test_every_family_holds_the_label(family: str) -> None:
    assert all("awe" in sentence for sentence in class_sentences("awe", templates=family))


LABELS = LabelSet(
    (
        Label("happiness", descriptors=("raised cheeks", "lip corners up", "crow's feet"), synonyms=("joy",)),
        Label("awe"),
    )
)


@pytest.mark.parametrize("ensemble", ["name", "templates", "descriptors", "all"])
def test_weights_sum_to_one_for_each_label(encoder: CountingEncoder, ensemble: str) -> None:
    vectors, owner, weight = embed_labels(TextBank(encoder), LABELS, ensemble=ensemble)  # type: ignore[arg-type]
    assert len(vectors) == len(owner) == len(weight)
    assert (owner.dtype, weight.dtype) == (np.int64, np.float32)
    assert np.bincount(owner, weights=weight) == pytest.approx([1, 1])


def test_what_each_ensemble_holds(encoder: CountingEncoder) -> None:
    bank = TextBank(encoder)
    embed_labels(bank, LABELS, ensemble="name")
    assert set(encoder.asked) == {"happiness", "awe"}
    _, owner, weight = embed_labels(bank, LABELS, ensemble="descriptors")
    assert (owner == 0).sum() == 3
    assert "raised cheeks" in encoder.asked
    assert weight[owner == 0] == pytest.approx([1 / 3] * 3)
    assert (owner == 1).sum() == len(class_sentences("awe"))  # no descriptors: its templates
    _, owner, weight = embed_labels(bank, LABELS, ensemble="all")
    assert weight[owner == 0].sum() == pytest.approx(1)
    assert weight[owner == 0][-3:].sum() == pytest.approx(1 / 3)  # templates, synonyms, descriptors: equal shares
    with pytest.raises(PromptError, match="descriptors"):
        embed_labels(bank, LABELS, ensemble="descriptor")  # type: ignore[arg-type]


def test_order_of_labels_permutes_the_answer(encoder: CountingEncoder) -> None:
    bank = TextBank(encoder)
    forward, owner, weight = embed_labels(bank, LABELS)
    turned = LabelSet(LABELS.labels[::-1])
    backward, turned_owner, turned_weight = embed_labels(bank, turned)
    for i in range(2):
        assert np.array_equal(forward.vectors[owner == i], backward.vectors[turned_owner == 1 - i])
        assert np.array_equal(weight[owner == i], turned_weight[turned_owner == 1 - i])
