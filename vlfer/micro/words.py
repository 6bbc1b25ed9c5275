"""What the motions of a face are called: action units and the emotions that go with them, in sentences.

Unit names follow FACS (Ekman, Friesen and Hager, 2002), combinations the EMFACS-like table of the field.
"""

from __future__ import annotations

UNIT_SENTENCES: dict[str, tuple[str, ...]] = {
    "AU1": ("the inner brows are raised", "inner brow raiser", "the inner ends of the eyebrows move up"),
    "AU2": ("the outer brows are raised", "outer brow raiser", "the outer ends of the eyebrows move up"),
    "AU4": ("the brows are lowered and drawn together", "brow lowerer", "frowning brows"),
    "AU5": ("the upper eyelids are raised", "upper lid raiser", "the eyes open wide"),
    "AU6": ("the cheeks are raised", "cheek raiser", "the cheeks push up under the eyes"),
    "AU7": ("the eyelids are tightened", "lid tightener", "narrowed eyes"),
    "AU9": ("the nose is wrinkled", "nose wrinkler", "the skin beside the nose is pulled up"),
    "AU10": ("the upper lip is raised", "upper lip raiser", "the upper lip curls up"),
    "AU12": ("the lip corners are pulled up", "lip corner puller", "a slight smile"),
    "AU14": ("the lip corners are tightened inwards", "dimpler", "a dimple beside the mouth"),
    "AU15": ("the lip corners are pulled down", "lip corner depressor", "the mouth turns down"),
    "AU17": ("the chin is raised", "chin raiser", "the chin pushes the lower lip up"),
    "AU20": ("the lips are stretched sideways", "lip stretcher", "the mouth widens tensely"),
    "AU23": ("the lips are tightened", "lip tightener", "the lips become narrow"),
    "AU24": ("the lips are pressed together", "lip pressor", "pressed lips"),
    "AU25": ("the lips part", "lips parted", "the mouth opens slightly"),
    "AU26": ("the jaw drops", "jaw drop", "the mouth falls open"),
}

EMOTION_SENTENCES: dict[str, tuple[str, ...]] = {
    "negative": ("negative", "a negative emotion", "a suppressed unpleasant feeling", "displeasure"),
    "positive": ("positive", "a positive emotion", "happiness", "a suppressed smile", "pleasure", "amusement"),
    "surprise": ("surprise", "surprised", "a startled look", "astonishment"),
    "happiness": ("happiness", "happy", "a positive emotion", "a suppressed smile"),
    "disgust": ("disgust", "disgusted", "a negative emotion", "revulsion"),
    "repression": ("repression", "an emotion held back", "a negative emotion", "pressed lips hiding a feeling"),
    "anger": ("anger", "angry", "a negative emotion", "irritation"),
    "contempt": ("contempt", "scorn", "a negative emotion", "a one-sided sneer"),
    "fear": ("fear", "afraid", "a negative emotion", "fright"),
    "sadness": ("sadness", "sad", "a negative emotion", "sorrow"),
    "others": ("another emotion", "a mixed expression"),
}

EMOTION_BY_UNITS: dict[str, tuple[tuple[str, ...], ...]] = {
    "happiness": (("AU12",), ("AU6", "AU12"), ("AU12", "AU25")),
    "surprise": (("AU1", "AU2"), ("AU1", "AU2", "AU5"), ("AU2",), ("AU1", "AU2", "AU25"), ("AU1", "AU2", "AU26")),
    "disgust": (("AU9",), ("AU10",), ("AU4", "AU9"), ("AU4", "AU10"), ("AU4", "AU7")),
    "anger": (("AU4", "AU7", "AU23"), ("AU4", "AU5"), ("AU4", "AU23"), ("AU4", "AU24")),
    "sadness": (("AU1", "AU4"), ("AU15",), ("AU1", "AU15"), ("AU15", "AU17"), ("AU1", "AU4", "AU15")),
    "fear": (("AU1", "AU2", "AU4", "AU5"), ("AU20",), ("AU1", "AU4", "AU20"), ("AU5", "AU20")),
    "repression": (("AU14", "AU17"), ("AU17",), ("AU24", "AU17"), ("AU24",)),
}
"""Combinations of units with the emotion they suggest; an inference by table, not a fact about the person."""


def parse_units(text: str) -> tuple[str, ...]:
    """Return the units of an annotation such as "4+L10" or "R14+17", those with sentences, in order, sides dropped."""
    found = []
    for part in text.replace(",", "+").split("+"):
        digits = "".join(c for c in part if c.isdigit())
        if digits and f"AU{int(digits)}" in UNIT_SENTENCES:
            found.append(f"AU{int(digits)}")
    return tuple(dict.fromkeys(found))
