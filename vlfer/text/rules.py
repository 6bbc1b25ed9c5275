"""What a sentence for a face may not say, told by words alone: who a person is, what they feel, and what FACS denies.

Action units after Ekman, Friesen and Hager, Facial Action Coding System, 2002; which of them an expression excludes
after EMFACS. The patterns know the plain English in which descriptors are written, not all of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vlfer.types import Label, fold_label


def _any(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{'|'.join(words.split())})(?![\w])", re.IGNORECASE)


#: Age, gender, race and culture.
IDENTITY = _any(
    r"m[ae]n wom[ae]n boys? girls? males? females? he she his hers? him himself herself lad(?:y|ies) gentlem[ae]n guys?"
    r" mothers? fathers? masculine feminine young(?:er)? old(?:er)? elderly child(?:ren)? childlike kids? bab(?:y|ies)"
    r" toddlers? infants? adults? teen(?:s|ager)?s? aged? middle-aged years? senior asians? africans? europeans?"
    r" caucasians? americans? indians? hispanics? latin[oax]s? arabs? chinese japanese korean jewish muslims?"
    r" christians? hindus? western(?:er)? eastern(?:er)? oriental black brown white-skinned dark-skinned light-skinned"
    r" skin-colou?r races? racial ethnic\w* genders?\w* cultur\w+ nationalit\w+ religio\w+ beards?\w* moustaches?"
    r" make-?up lipstick mascara headscar\w+ hijabs?"
)
#: What goes on inside, which no picture shows.
FEELING = re.compile(
    r"\b(?:feel(?:s|ing|ings)?|felt|emotion(?:s|al|ally)?|moods?|inwardly|on the inside|thinks|thinking|thoughts?"
    r"|wish(?:es|ing)?|wants?|hopes|hoping|believ\w+|remember\w*|experienc\w+|at heart|deep down|in love|because"
    r"|personality|character|mental\w*|psych\w+)\b",
    re.IGNORECASE,
)
#: Anything that can be seen on a face or of a head.
VISIBLE = re.compile(
    r"\b(?:brow\w*|eyebrow\w*|forehead\w*|eye\w*|lid\w*|eyelid\w*|gaz\w+|star(?:e|es|ing)|glar\w+|glanc\w+|look\w*|squint\w*"
    r"|peer\w*|blink\w*|wink\w*|pupil\w*|sclera\w*|iris\w*|nose\w*|nostril\w*|cheek\w*|mouth\w*|lip\w*|teeth|tooth\w*|jaw\w*"
    r"|chin\w*|tongue\w*|gums?|head\w*|neck\w*|fac(?:e|es|ial)|features?|smil\w+|grin\w*|smirk\w*|sneer\w*|frown\w*|scowl\w*"
    r"|grimac\w+|pout\w*|laugh\w*|yawn\w*|tear\w*|cry\w*|cries|weep\w*|sob\w*|dimpl\w+|wrinkl\w+|creas\w+|furrow\w*|fold\w*"
    r"|crow's-feet|expression\w*|muscle\w*|skin|blush\w*|flush\w*|pale|breath\w*|gasp\w*|shout\w*|scream\w*|snarl\w*|wince\w*"
    r"|nod\w*|swallow\w*|gulp\w*|shrug\w*|shoulder\w*|hands?|profile|visage|countenance|temples?|ears?|chuckl\w+|mirth"
    r"|sniff\w*|beam\w*|upturn\w*|downturn\w*|smooth\w*|teary|glassy|au ?\d+)\b",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"\b(?:no|not|never|without|neither|nor|nothing|none|instead of|rather than|lacks?|lacking|absent|unlike|hardly any"
    r"|free of|stops? short of|cannot|isn't|aren't|doesn't|don't)\b",
    re.IGNORECASE,
)
_CORNERS = r"(?:(?:lip|mouth) corners?|corners? of (?:the|its|their) (?:mouth|lips)|ends? of the mouth|mouth corners?)"
_UP = r"(?:up|upward|upwards|upturned|raised|lifted|rise|rises|rising|curl(?:s|ed)? up\w*|drawn back and up)"
_DOWN = r"(?:down|downwards?|downturned|sinks?|sinking|sags?|droops?|drooping|lowered|depressed|falls?)"
_NEAR = r"(?:(?! while | but | above | below | over | under )[^,;.]){0,40}?\b"  # the same clause

#: Pattern of a visible action, the unit it is, and how to name it.
_ACTIONS: tuple[tuple[str, str, str], ...] = (
    ("12", rf"\b{_CORNERS}\b{_NEAR}{_UP}\b", "raised lip corners"),
    ("12", r"\b(?:broad|wide|warm|happy|joyful|beaming|toothy|cheerful|hearty) (?:smile|grin)\w*",
     "a broad smile"),
    ("12", r"\b(?:smiling|grinning|beaming|laughing) (?:broadly|widely|warmly|happily|heartily)\b", "a broad smile"),
    ("15", rf"\b{_CORNERS}\b{_NEAR}{_DOWN}\b", "lowered lip corners"),
    ("15", r"\b(?:downturned|drooping|down-turned) (?:mouth|lips)\b", "lowered lip corners"),
    ("4", r"\b(?:eye)?brows?\b[^,;.]{0,30}?\b(?:lowered|pulled down|pressed down|slammed down|furrowed|knit(?:ted)?)\b",
     "lowered brows"),
    ("4", r"\b(?:lowered|furrowed|knitted) (?:eye)?brows?\b", "lowered brows"),
    ("2", r"\b(?:eye)?brows?\b[^,;.]{0,30}?\b(?:raised|lifted|arched high|shoot up|shot up|fly up|go up)\b",
     "raised brows"),
    ("2", r"\b(?:raised|lifted|high-arched) (?:eye)?brows?\b", "raised brows"),
    ("5", r"\b(?:eyes?|lids?)\b[^,;.]{0,20}?\b(?:wide open|opened wide|widened|stretched open|bulging)\b",
     "widened eyes"),
    ("5", r"\b(?:wide|widened|bulging|wide-open) eyes\b", "widened eyes"),
    ("9", r"\bnose\b[^,;.]{0,20}?\b(?:wrinkle[sd]?|wrinkling|crinkle[sd]?|scrunche[sd]|screwed up)\b",
     "a wrinkled nose"),
    ("9", r"\b(?:wrinkled|crinkled|scrunched) nose\b", "a wrinkled nose"),
    ("10", r"\bupper lip\b[^,;.]{0,20}?\b(?:raised|curled|curls|lifted|hoisted|climbs)\b", "a raised upper lip"),
    ("20", r"\blips?\b[^,;.]{0,20}?\bstretched (?:sideways|horizontally|back)\b", "lips stretched sideways"),
    ("27", r"\bmouth\b[^,;.]{0,20}?\b(?:gap(?:es|ing)|hangs open|falls open|wide open)\b", "a wide-open mouth"),
)  # fmt: skip
_COMPILED = tuple((unit, re.compile(pattern, re.IGNORECASE), words) for unit, pattern, words in _ACTIONS)

#: Units that an expression excludes.
EXCLUDED: dict[str, frozenset[str]] = {
    "neutral": frozenset({"12", "15", "9", "10", "20", "27", "5"}),
    "happiness": frozenset({"15", "9", "20"}),
    "sadness": frozenset({"12", "9", "5"}),
    "anger": frozenset({"12", "2"}),
    "fear": frozenset({"12", "9"}),
    "surprise": frozenset({"15", "9", "4"}),
    "disgust": frozenset({"5", "20"}),
    "contempt": frozenset({"5", "20", "27"}),
}
_OPPOSITE = {"12": "15", "15": "12"}
_EMOTION_WORDS: dict[str, tuple[str, ...]] = {
    "neutral": ("neutral", "neutrality", "expressionless"),
    "happiness": ("happiness", "happy", "joy", "joyful", "cheerful", "delight"),
    "sadness": ("sadness", "sad", "sorrow", "grief", "misery", "unhappy"),
    "anger": ("anger", "angry", "rage", "fury", "furious"),
    "fear": ("fear", "fearful", "afraid", "terror", "scared", "panic"),
    "surprise": ("surprise", "surprised", "astonishment", "astonished"),
    "disgust": ("disgust", "disgusted", "revulsion"),
    "contempt": ("contempt", "contemptuous", "disdain", "scorn"),
}
_EMOTION_OF = {word: emotion for emotion, words in _EMOTION_WORDS.items() for word in words}


@dataclass(frozen=True, slots=True)
class Action:
    """A visible action that a sentence speaks of.

    Attributes:
        unit: FACS number.
        words: What it is, in words.
        found: Where the sentence says so.
    """

    unit: str
    words: str
    found: str


def actions_in(sentence: str) -> tuple[Action, ...]:
    """Return the actions a sentence affirms; one under a negation ("no smile") is left out."""
    found: dict[str, Action] = {}
    for unit, pattern, words in _COMPILED:
        for match in pattern.finditer(sentence):
            clause = re.split(r"[,;.]| but | while | though ", sentence[: match.start()])[-1]
            if not _NEGATION.search(clause) and not _NEGATION.search(match.group()):
                found.setdefault(unit, Action(unit, words, match.group()))
    return tuple(found.values())


def excluded_units(label: Label) -> frozenset[str]:
    """Return the units that speak against a label: by its name, or as the opposite of the units it lists.

    A unit that the label lists itself is never excluded, so that a bitter smile may sink on one side.
    """
    own = {re.sub(r"\D", "", unit) for unit in label.action_units}
    names = [fold_label(part) for part in label.parts] or [fold_label(label.name)]
    named = [EXCLUDED[_EMOTION_OF[name]] for name in names if name in _EMOTION_OF]
    by_name = frozenset.intersection(*named) if named and len(named) == len(names) else frozenset()
    by_units = frozenset(_OPPOSITE[unit] for unit in own if unit in _OPPOSITE)
    return (by_name | by_units) - own


def names_label(sentence: str, words: Sequence[str]) -> str | None:
    """Return the first of ``words`` that a sentence says as a whole word, or None."""
    for word in words:
        if word.strip() and re.search(rf"(?<![\w-]){re.escape(word.strip())}(?![\w-])", sentence, re.IGNORECASE):
            return word
    return None


def plain_words(sentence: str) -> str:
    """Return a sentence in lower case without marks: what doubles are told by."""
    return " ".join(re.findall(r"[^\W_]+", sentence.casefold()))
