"""What a language model is told when it writes descriptors. The hash of these words is kept with what it wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SYSTEM = """\
You write sentences about how a face LOOKS. A vision model will compare each sentence with pictures of faces, so only
what a camera could see is of use.

Rules for every sentence:
1. Name visible action of brows, forehead, eyes, lids, nose, cheeks, mouth, lips, jaw, chin, tongue or head, as the
   Facial Action Coding System (FACS) describes it. Plain English, no unit numbers inside sentences.
2. Never say what the person feels, thinks or wants, nor why. Never say who it is: no age, sex, race, culture,
   hair, beard, clothes, no "man", "woman", "he", "she", "child".
3. Do not use the expression's own name or a word of the same family.
4. 5 to 25 words. Vary the beginning and the build. No two sentences alike.
5. Keep to what tells this expression from the others in the list you are given.
"""

TASK = """\
Expression: {label}
{near}
Answer with one JSON object and nothing else, all in English, with these keys:
- "definition": one plain sentence of at most 20 words that says what the word means, for a reader who never met it,
  followed by the visible sign of it.
- "synonyms": 3 to 6 English words or short phrases that mean the same.
- "action_units": the FACS units it shows, such as ["AU6", "AU12"]; [] if none moves.
- "subtle": 3 sentences, barely visible: one small change in an otherwise still face.
- "moderate": 4 sentences, plainly visible, as in a conversation. One for brows and eyes, one for nose and cheeks,
  one for mouth and chin, one for the whole face with the head.
- "strong": 3 sentences, at full strength.
- "dynamics": 2 sentences on how it unfolds in a video: what moves first, how fast it comes, how it fades.
- "contrast": {contrast}
- "negatives": 4 short cues (2 to 8 words) that speak AGAINST it if seen, such as "lip corners pulled down".
"""

NEAR = """\
It must be told from: {names}.
"""
WITH_CONTRAST = """\
1 to {most} objects {{"against": one of the expressions above, "sentence": a visible sign that is here
  and not there}}."""
NO_CONTRAST = "[]"

AGAIN = """\
That answer cannot be used:
{complaints}
Answer again: one JSON object with all nine keys, nothing before or after it.
"""

MOST_CONTRASTS = 4


def build_messages(label: str, *, near: Sequence[str]) -> list[dict[str, str]]:
    """Return the request for one label.

    Args:
        label: As the user wrote it, in any script.
        near: Expressions it must be told from; may be empty.
    """
    contrast = WITH_CONTRAST.format(most=min(MOST_CONTRASTS, len(near))) if near else NO_CONTRAST
    names = NEAR.format(names="; ".join(near)) if near else ""
    task = TASK.format(label=label, near=names, contrast=contrast)
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task}]


def instructions_sha256() -> str:
    """Return the hash of everything that is said to a model."""
    words = [SYSTEM, TASK, NEAR, WITH_CONTRAST, NO_CONTRAST, AGAIN]
    return hashlib.sha256("\n--\n".join(words).encode()).hexdigest()
