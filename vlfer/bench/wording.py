"""What words do to recognition, on held-out faces with votes: wordings, paraphrases, synonyms, mixtures, languages.

Whatever is chosen is chosen on the validation part; figures are of the test part. Faces are split by content as in
training, so that no picture, nor a copy of it, was seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlfer.metrics import expected_calibration_error, one_against_rest_auc, vote_agreement, war_uar
from vlfer.models.encoder import Encoder
from vlfer.scoring import Pooling, score, score_sentences
from vlfer.text.bank import Ensemble, SentenceBank
from vlfer.text.combine import definition_of
from vlfer.text.labels import load_label_set
from vlfer.text.lexicon import HELD_OUT_PHRASES, HELD_OUT_WORDS, VOTE_CLASSES, load_lexicon
from vlfer.text.weigh import weigh_descriptors
from vlfer.training.data import load_voted_faces, split_by_content
from vlfer.types import Embedding, FloatArray, IntArray, Label, LabelSet, Scores

LABELS = "ferplus8"
HELD_OUT_SHARE = 0.06
DRAWS = 50
_CLEAR = 0.65
_FEWEST_MIXED = 12
_MIXED_SHARE = 0.3

#: The eight classes in other languages than the text tower of the bundled backbone was trained on.
LANGUAGES: dict[str, tuple[str, ...]] = {
    "German": ("neutral", "Freude", "Überraschung", "Trauer", "Wut", "Ekel", "Angst", "Verachtung"),
    "French": ("neutre", "joie", "surprise", "tristesse", "colère", "dégoût", "peur", "mépris"),
    "Spanish": ("neutral", "alegría", "sorpresa", "tristeza", "ira", "asco", "miedo", "desprecio"),
    "Chinese": ("平静", "快乐", "惊讶", "悲伤", "愤怒", "厌恶", "恐惧", "轻蔑"),
}
#: Ways of saying it, for random paraphrases.
OPENERS_NOUN = (
    "{}", "an expression of {}", "a face showing {}", "a photo of a face with an expression of {}",
    "a person whose face shows {}", "a picture of {}", "{} on a face", "a look of {}", "somebody showing {}",
    "a portrait that shows {}", "the facial expression of {}", "a close-up of a face full of {}", "visible {}",
)  # fmt: skip
OPENERS_ADJECTIVE = (
    "{}", "a {} expression", "a {} face", "a photo of a person who looks {}", "a person with a {} look on their face",
    "someone who seems {}", "a {} person", "somebody looking {}", "the face of a {} person", "a {} portrait",
    "looking {}", "this person is {}", "a close-up of a {} face",
)  # fmt: skip
_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # nouns, adjectives
    "neutral": (("no emotion", "calm"), ("neutral", "expressionless", "calm", "blank")),
    "happiness": (("happiness", "joy", "delight"), ("happy", "joyful", "cheerful", "delighted")),
    "surprise": (("surprise", "astonishment", "amazement"), ("surprised", "astonished", "amazed", "startled")),
    "sadness": (("sadness", "sorrow", "grief"), ("sad", "unhappy", "sorrowful", "gloomy")),
    "anger": (("anger", "rage", "fury"), ("angry", "furious", "mad", "enraged")),
    "disgust": (("disgust", "revulsion", "repulsion"), ("disgusted", "revolted", "repelled", "grossed out")),
    "fear": (("fear", "terror", "fright"), ("afraid", "scared", "frightened", "terrified")),
    "contempt": (("contempt", "disdain", "scorn"), ("contemptuous", "disdainful", "scornful", "sneering")),
}


@dataclass(frozen=True, slots=True)
class VotedEmbedding:
    """Encoded faces with their votes.

    Attributes:
        images: N vectors.
        votes: (N, C) float32 over ``VOTE_CLASSES``.
        pixels: (N, S, S, 3) uint8, the faces.
    """

    images: Embedding
    votes: FloatArray
    pixels: Any

    @property
    def truth(self) -> IntArray:
        """(N,) int64, the class with most votes."""
        return np.asarray(self.votes.argmax(axis=1), np.int64)


def load_held_out(path: Path, encoder: Encoder) -> dict[str, VotedEmbedding]:
    """Load an archive of faces with votes and encode its validation and its test part.

    Raises:
        DataError: If the archive is missing or of another layout.
    """
    faces = load_voted_faces(path, classes=VOTE_CLASSES)
    rows = split_by_content(faces.images, validation=HELD_OUT_SHARE, test=HELD_OUT_SHARE)
    found = {}
    for part in ("validation", "test"):
        own = faces.take(rows[part])
        pixels = np.ascontiguousarray(np.repeat(own.images[..., None], 3, axis=3))
        found[part] = VotedEmbedding(encoder.encode_images(pixels, batch_size=64), own.votes, pixels)
    return found


class Wordings:
    """Everything measured on one backbone.

    Args:
        bank: Of the backbone's space.
        temperature: Of the backbone.
        temperature_of: That of each ensemble, where the backbone has several; None takes ``temperature`` for all.
        parts: Encoded faces, "validation" and "test".
        seed: Of all draws.
    """

    def __init__(
        self,
        bank: SentenceBank,
        *,
        temperature: float,
        parts: dict[str, VotedEmbedding],
        seed: int = 0,
        temperature_of: Callable[[str], float] | None = None,
    ) -> None:
        self.bank = bank
        self.temperature = temperature
        self.temperature_of = temperature_of or (lambda ensemble: temperature)
        self.validation = parts["validation"]
        self.test = parts["test"]
        self.seed = seed
        self.labels = load_label_set(LABELS)

    def scores(
        self, faces: VotedEmbedding, labels: LabelSet, ensemble: Ensemble = "all", pooling: Pooling = "embeddings"
    ) -> Scores:
        """Score faces against labels."""
        return score(
            faces.images, labels, self.bank, temperature=self.temperature_of(ensemble), ensemble=ensemble,
            pooling=pooling,
        )  # fmt: skip

    def figures(self, scores: Scores, faces: VotedEmbedding) -> dict[str, float]:
        """Return WAR, UAR, ECE and the agreement with split votes, in percent but the last."""
        war, uar = war_uar(scores.probability.argmax(axis=1), faces.truth)
        ece = expected_calibration_error(faces.truth, scores.probability)
        agreement = vote_agreement(scores.probability, faces.votes)
        return {"war": 100 * war, "uar": 100 * uar, "ece": 100 * ece, "spearman": agreement}

    def wordings(self, sets: Sequence[LabelSet] = ()) -> list[dict[str, Any]]:
        """Compare ways of standing for a class: sets of words, ensembles, poolings, weights by usefulness."""
        rows = []
        for labels in (self.labels, *sets):
            ways: list[tuple[str, LabelSet, Ensemble, Pooling]] = [
                ("names", labels, "name", "embeddings"),
                ("templates", labels, "templates", "embeddings"),
                ("descriptors", labels, "descriptors", "embeddings"),
                ("all", labels, "all", "embeddings"),
                ("all, mean of logits", labels, "all", "logits"),
                ("contrast: all less negatives", labels, "contrast", "embeddings"),
                ("contrast, mean of logits", labels, "contrast", "logits"),
                ("definitions", labels, "definitions", "embeddings"),
            ]
            if any(label.dynamics for label in labels.labels):
                ways.append(("dynamics", labels, "dynamics", "embeddings"))
            weighed = weigh_descriptors(self.bank, labels, self.validation.images, self.validation.truth)
            ways += [
                ("descriptors, weighted by use", weighed, "descriptors", "embeddings"),
                ("all, weighted by use", weighed, "all", "embeddings"),
            ]
            for name, own, ensemble, pooling in ways:
                row: dict[str, Any] = {"set": labels.name, "way": name}
                for part, faces in (("validation", self.validation), ("test", self.test)):
                    found = self.figures(self.scores(faces, own, ensemble, pooling), faces)
                    row |= {f"{part} {key}": value for key, value in found.items()}
                rows.append(row)
        return rows

    def paraphrases(self) -> list[dict[str, Any]]:
        """Tell the spread over random paraphrases: one a class, five, and the shipped sentences halved at random."""
        rng = np.random.default_rng(self.seed)

        def openers_only() -> list[list[str]]:
            return [[_say(rng, _WORDS[name], first=True)] for name in self.labels.names]

        def free(count: int) -> Callable[[], list[list[str]]]:
            return lambda: [[_say(rng, _WORDS[name]) for _ in range(count)] for name in self.labels.names]

        def half() -> list[list[str]]:
            return [
                [label.descriptors[i] for i in rng.permutation(len(label.descriptors))[: len(label.descriptors) // 2]]
                for label in self.labels.labels
            ]

        def one() -> list[list[str]]:
            return [[label.descriptors[int(rng.integers(len(label.descriptors)))]] for label in self.labels.labels]

        kinds: list[tuple[str, Callable[[], list[list[str]]]]] = [
            ("one template a class, the word fixed", openers_only),
            ("one sentence a class, template and word free", free(1)),
            ("five such sentences a class", free(5)),
            ("twenty such sentences a class", free(20)),
            ("one descriptor a class", one),
            ("half of the descriptors", half),
        ]
        return [{"paraphrase": name, **self._spread([draw() for _ in range(DRAWS)])} for name, draw in kinds]

    def _spread(self, draws: Sequence[Sequence[Sequence[str]]]) -> dict[str, float]:
        found = np.array([war_uar(self._direct(self.test, sentences), self.test.truth) for sentences in draws])
        wars, uars = 100 * found[:, 0], 100 * found[:, 1]
        return {
            "war mean": wars.mean(), "war sd": wars.std(ddof=1), "war min": wars.min(), "war max": wars.max(),
            "uar mean": uars.mean(), "uar sd": uars.std(ddof=1),
        }  # fmt: skip

    def _direct(self, faces: VotedEmbedding, sentences: Sequence[Sequence[str]]) -> IntArray:
        """Return the class whose mean sentence is nearest."""
        flat = [text for own in sentences for text in own]
        owner = np.repeat(np.arange(len(sentences)), [len(own) for own in sentences])
        scores = score_sentences(
            faces.images, self.bank.encode(flat), owner, np.ones(len(flat), np.float32), labels=self.labels,
            temperature=self.temperature,
        )  # fmt: skip
        return np.asarray(scores.similarity.argmax(axis=1), np.int64)

    def synonyms(self) -> list[dict[str, Any]]:
        """Name every class by a held-out word, phrase or idiom at random, with and without its meaning."""
        rows = []
        texts = held_out_texts()
        kinds = {"word": "a held-out word", "phrase": "a held-out phrase", "idiom": "a held-out idiom"}
        for kind, words in kinds.items():
            pools = [[t for t, k, c in texts if c == i and (k == kind or (kind == "phrase" and k != "word"))]
                     for i in range(len(VOTE_CLASSES))]  # fmt: skip
            if kind == "idiom":  # two classes have none: they keep their names
                pools = [own or [VOTE_CLASSES[i]] for i, own in enumerate(pools)]
            rows.append({"named by": words, **self._named(pools, "templates")})
            told = [[t for t in own if definition_of(Label(t))] for own in pools]
            told = [own or [VOTE_CLASSES[i]] for i, own in enumerate(told)]
            if kind != "phrase":
                rows.append({"named by": f"{words} that the glossary has", **self._named(told, "templates")})
                rows.append({"named by": f"{words} with its meaning", **self._named(told, "definitions")})
        rows.append({"named by": "a synonym of basic.yaml",
                     **self._named([list(label.synonyms) for label in self.labels.labels], "templates")})  # fmt: skip
        return rows

    def _named(self, pools: Sequence[Sequence[str]], ensemble: Ensemble) -> dict[str, float]:
        flat = [text for own in pools for text in own]
        columns = np.concatenate(
            [self.scores(self.test, LabelSet((Label(text),)), ensemble).similarity for text in flat], axis=1
        )
        starts = np.cumsum([0, *(len(own) for own in pools)])
        rng = np.random.default_rng(self.seed)
        found = []
        for _ in range(DRAWS):
            chosen = [int(starts[i] + rng.integers(len(own))) for i, own in enumerate(pools)]
            found.append(war_uar(columns[:, chosen].argmax(axis=1).astype(np.int64), self.test.truth))
        wars, uars = 100 * np.array(found).T
        return {"war mean": wars.mean(), "war sd": wars.std(ddof=1), "uar mean": uars.mean(), "texts": len(flat)}

    def languages(self) -> list[dict[str, Any]]:
        """Name the classes in other languages: alone, with the English word as a synonym, and beside English."""
        rows = []
        for language, names in LANGUAGES.items():
            alone = LabelSet(tuple(Label(f"{name}", aliases=()) for name in names))
            both = LabelSet(
                tuple(replace(label, synonyms=(*label.synonyms, name))
                      for label, name in zip(self.labels.labels, names, strict=True))
            )  # fmt: skip
            told = LabelSet(
                tuple(Label(name) if name == english else Label(name, synonyms=(english,))
                      for english, name in zip(VOTE_CLASSES, names, strict=True))
            )  # fmt: skip
            row: dict[str, Any] = {"language": language}
            ways: tuple[tuple[str, LabelSet, Ensemble], ...] = (
                ("", alone, "templates"), (" with the English word", told, "all"), (" beside English", both, "all"),
            )  # fmt: skip
            for way, labels, ensemble in ways:
                scores = self.scores(self.test, labels, ensemble)
                war, uar = war_uar(scores.similarity.argmax(axis=1), self.test.truth)
                row |= {f"war{way}": 100 * war, f"uar{way}": 100 * uar}
            rows.append(row)
        return rows

    def mixtures(self) -> list[dict[str, Any]]:
        """Tell how well a mixture's score ranks faces whose votes are split between its parts before all others."""
        faces = _joined(self.validation, self.test)
        shares = faces.votes / faces.votes.sum(axis=1, keepdims=True)
        base = self.scores(faces, self.labels).probability
        own_words = {frozenset(x.parts): x for x in load_label_set("mafw43").labels if len(x.parts) == 2}
        rows = []
        for a, b in itertools.combinations(range(len(VOTE_CLASSES)), 2):
            mixed = (shares[:, a] >= _MIXED_SHARE) & (shares[:, b] >= _MIXED_SHARE)
            if mixed.sum() < _FEWEST_MIXED:
                continue
            one, two = VOTE_CLASSES[a], VOTE_CLASSES[b]
            joined = LabelSet((Label(f"{one} and {two}"),))
            row = {"mixture": f"{one} and {two}", "faces": int(mixed.sum()),
                   "least probability of both": _auc(np.minimum(base[:, a], base[:, b]), mixed),
                   "name, in templates": self._auc_of(faces, joined, "templates", mixed),
                   "parts": self._auc_of(faces, joined, "parts", mixed), "own sentences": None}  # fmt: skip
            own = own_words.get(frozenset((one, two)))
            if own is not None:
                row["own sentences"] = self._auc_of(faces, LabelSet((own,)), "all", mixed)
            rows.append(row)
        return rows

    def _auc_of(self, faces: VotedEmbedding, labels: LabelSet, ensemble: Ensemble, mixed: Any) -> float:
        return _auc(self.scores(faces, labels, ensemble).similarity[:, 0], mixed)

    def classes(self) -> list[dict[str, Any]]:
        """Tell how well each class is ranked before the others by its words alone (AUC), and its recall."""
        scores = self.scores(self.test, self.labels)
        names = self.scores(self.test, self.labels, "name")
        guess = scores.probability.argmax(axis=1)
        rows = []
        for i, name in enumerate(VOTE_CLASSES):
            own = self.test.truth == i
            rows.append({"class": name, "faces": int(own.sum()), "recall": 100 * float((guess[own] == i).mean()),
                         "AUC, all": _auc(scores.similarity[:, i], own),
                         "AUC, name": _auc(names.similarity[:, i], own)})  # fmt: skip
        return rows


def held_out_texts() -> list[tuple[str, str, int]]:
    """Return (text, kind, class) of the held-out words and phrases that clearly mean one class."""
    found = []
    for file in (HELD_OUT_WORDS, HELD_OUT_PHRASES):
        lexicon = load_lexicon(file)
        for text, kind, votes in zip(lexicon.texts, lexicon.kinds, lexicon.votes, strict=True):
            if votes.max() >= _CLEAR:
                found.append((text, kind, int(votes.argmax())))
    return found


def _joined(one: VotedEmbedding, two: VotedEmbedding) -> VotedEmbedding:
    vectors = np.concatenate([one.images.vectors, two.images.vectors])
    return VotedEmbedding(Embedding(vectors, one.images.space), np.concatenate([one.votes, two.votes]), None)


def _auc(score_: FloatArray, positive: Any) -> float:
    columns = np.stack([-score_, score_], axis=1)
    value = one_against_rest_auc(np.asarray(positive, np.int64), columns)[1]
    return float("nan") if value is None else value


def _say(rng: np.random.Generator, words: tuple[tuple[str, ...], tuple[str, ...]], *, first: bool = False) -> str:
    """Return a random sentence: a noun or an adjective in a way of saying it; ``first`` keeps the first word."""
    form = int(rng.integers(2))
    openers = (OPENERS_NOUN, OPENERS_ADJECTIVE)[form]
    word = words[form][0 if first else int(rng.integers(len(words[form])))]
    return openers[int(rng.integers(len(openers)))].replace("{}", word)
