"""Labels as a request names them. No path is ever opened, and what people ask is kept in memory only."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from vlfer.errors import PromptError
from vlfer.serve.problems import LimitError
from vlfer.text.bank import TextEncoder
from vlfer.text.labels import labels_from_words, load_label_set, parse_labels, shipped_sets
from vlfer.types import Embedding, FloatArray, Label, LabelSet, fold_label

_MOST_KNOWN = 20_000
_MOST_DESCRIPTORS = 16
_LONGEST = 500


class RecentBank:
    """A sentence bank that forgets: vectors of the sentences asked last, in memory. Safe from several threads.

    Args:
        encoder: Encodes what is not known.
        most: Number of sentences kept.
    """

    def __init__(self, encoder: TextEncoder, *, most: int = _MOST_KNOWN) -> None:
        self.encoder = encoder
        self.space = encoder.space
        self._most = most
        self._known: OrderedDict[str, FloatArray] = OrderedDict()
        self._lock = threading.Lock()

    def encode(self, sentences: Sequence[str]) -> Embedding:
        """Return one unit vector for each sentence, in order.

        Raises:
            PromptError: If there is no sentence.
        """
        if isinstance(sentences, str) or not sentences:
            raise PromptError("There is no sentence to encode.")
        with self._lock:
            found = {text: self._known[text] for text in sentences if text in self._known}
            for text in found:
                self._known.move_to_end(text)
        missing = [text for text in dict.fromkeys(sentences) if text not in found]
        if missing:
            fresh = dict(zip(missing, self.encoder.encode_texts(missing).vectors, strict=True))
            found |= fresh
            with self._lock:
                self._known |= fresh
                while len(self._known) > self._most:
                    self._known.popitem(last=False)
        return Embedding(np.stack([found[text] for text in sentences]), self.space)


def labels_of_request(spec: Any, *, most: int) -> LabelSet:
    """Return the labels that a request asks for.

    Args:
        spec: The name of a shipped set; words separated by commas; or a list, also as JSON text, of words or of
            objects with a name and sentences ("descriptors") of its own.
        most: Number of labels allowed.

    Raises:
        PromptError: If it is none of these.
        LimitError: If there are too many.
    """
    if isinstance(spec, str) and spec.lstrip().startswith(("[", "{")):
        try:
            spec = json.loads(spec)
        except (ValueError, RecursionError) as error:
            raise PromptError("The labels look like JSON and are not.", fix='["joy", "a polite smile"]') from error
    found = _from_text(spec) if isinstance(spec, str) else _from_list(spec)
    if len(found) > most:
        raise LimitError(f"{len(found)} labels were given.", why=f"At most {most} are compared at once here.")
    return found


def _from_text(text: str) -> LabelSet:
    wanted = fold_label(text)
    for name in shipped_sets():
        if fold_label(name) == wanted:
            return load_label_set(name)
    if any(mark in text for mark in ",;\n"):
        return parse_labels(text)
    raise PromptError(
        f"There is no label set called {text[:60]!r}.",
        why=f"There are {', '.join(shipped_sets())}.",
        fix='one of them, or two or more words of your own: "awe, polite smile"',
    )


def _from_list(items: Any) -> LabelSet:
    if not isinstance(items, list) or not all(isinstance(item, (str, dict)) for item in items):
        raise PromptError("The labels are no list of words.", fix='["joy", "a polite smile"]')
    names = [item if isinstance(item, str) else item.get("name", "") for item in items]
    if not all(isinstance(name, str) for name in names):
        raise PromptError("The name of a label is no text.", fix='{"name": "joy", "descriptors": ["a broad smile"]}')
    plain = labels_from_words(names)
    described = [
        Label(name=label.name, descriptors=_descriptors(item)) for label, item in zip(plain.labels, items, strict=True)
    ]
    return LabelSet(tuple(described), name="custom", origin=plain.origin)


def _descriptors(item: str | dict[str, Any]) -> tuple[str, ...]:
    given = [] if isinstance(item, str) else item.get("descriptors", [])
    if not isinstance(given, list) or not all(isinstance(s, str) and s.strip() and len(s) <= _LONGEST for s in given):
        raise PromptError(
            "The descriptors of a label are no list of sentences.", why=f"Each has 1 to {_LONGEST} characters."
        )  # fmt: skip
    if len(given) > _MOST_DESCRIPTORS:
        raise LimitError(f"A label has {len(given)} descriptors.", why=f"At most {_MOST_DESCRIPTORS} are read here.")
    return tuple(" ".join(sentence.split()) for sentence in given)
