"""One report over backbones, sets of faces, peers and words: what ``vlfer bench accuracy`` prints and writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlfer.bench.accuracy import SAMPLES, encode_faces, measure
from vlfer.bench.faces import Address, FaceSet, Part, load_faces
from vlfer.bench.peers.environment import Peer, on_classes, run_peer
from vlfer.bench.words import HELD_OUT, ClassTexts, words_report
from vlfer.calibration import default_temperature
from vlfer.config import cache_dir
from vlfer.models.bundled import read_card
from vlfer.models.encoder import Encoder, load_encoder
from vlfer.models.registry import find_backbone
from vlfer.scoring import score
from vlfer.text.bank import Ensemble, TextBank

Say = Callable[[str], None]
PEER_NOTE = (
    "Peers know seven classes, so contempt is always an error of theirs. Most small networks are trained on FER2013, "
    "whose training part these held-out faces come from: here peers may be scored on faces that they learned from."
)
LEARNED_NOTE = "was trained on the held-out texts as well: here they measure what it knows, not words never met."


def card_of(backbone: str) -> Mapping[str, Any] | None:
    """Return the card of a backbone in the bundled format; None for another.

    Raises:
        BackboneError: If the name is unknown or the card cannot be read.
    """
    spec = find_backbone(backbone)
    return read_card(Path(spec.source) if spec.source else None) if spec.origin == "bundled" else None


def cards_of(backbones: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the cards of those backbones that have one, and the bundled one's, so that sets are cut alike."""
    return [card for card in map(card_of, dict.fromkeys((*backbones, "bundled"))) if card is not None]


def accuracy_report(
    backbones: Sequence[str],
    addresses: Sequence[Address],
    *,
    part: Part = "validation",
    ensemble: Ensemble = "all",
    words: Sequence[ClassTexts] = (),
    draws: int = 100,
    show_texts: bool = False,
    peers: Sequence[Peer] = (),
    device: str = "auto",
    samples: int = SAMPLES,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Measure every backbone and peer on the same faces.

    Args:
        backbones: Names.
        addresses: Sets of faces.
        part: See `vlfer.bench.faces.load_faces`.
        ensemble: Sentences that stand for a label.
        words: Texts to replace class names by.
        draws: Random draws for each kind of text.
        show_texts: Whether every text is listed with its own loss.
        peers: Networks from the package index.
        device: Of the backbones.
        samples: Bootstrap samples.
        say: Told what is going on.

    Returns:
        JSON-ready: "sets", "results" (one for each set and backbone), "words", "notes".

    Raises:
        DataError: If a set cannot be loaded.
        BackboneError: If a backbone cannot be loaded.
        EnvironmentProblem: If a peer cannot be installed.
        PromptError: If the words lack a class.
    """
    cards = cards_of(backbones)
    sets = [load_faces(address, cards=cards, part=part) for address in addresses]
    report: dict[str, Any] = {"unit": "fraction", "part": part, "ensemble": ensemble}
    report |= {"sets": [faces.about() for faces in sets], "results": [], "words": [], "notes": []}
    for name in backbones:
        say(f"Loading {name}")
        encoder = load_encoder(name, device=device)
        bank = TextBank(encoder, cache_dir=cache_dir())
        for faces in sets:
            say(f"{name} on {len(faces)} faces of {faces.name}")
            result, told = backbone_on(
                encoder,
                bank,
                faces,
                ensemble=ensemble,
                words=words,
                draws=draws,
                show_texts=show_texts,
                samples=samples,
            )
            report["results"].append({"backbone": name, "kind": "backbone", "set": faces.name, **result})
            report["words"] += [{"backbone": name, "set": faces.name, **one} for one in told]
        if any(texts.source == HELD_OUT for texts in words) and not _held_out_words(card_of(name)):
            report["notes"].append(f"{name} {LEARNED_NOTE}")
    for peer in peers:
        report["results"] += [_peer_on(peer, faces, samples=samples, say=say) for faces in sets]
    if peers and any(faces.part != "all" for faces in sets):
        report["notes"].append(PEER_NOTE)
    return report


def backbone_on(
    encoder: Encoder,
    bank: TextBank,
    faces: FaceSet,
    *,
    ensemble: Ensemble,
    words: Sequence[ClassTexts],
    draws: int,
    show_texts: bool,
    samples: int,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the figures of one backbone on one set, and one report for each source of words."""
    images = encode_faces(encoder, faces)
    temperature = default_temperature(encoder, ensemble=ensemble)
    scores = score(images, faces.labels, bank, temperature=temperature, ensemble=ensemble)
    result = {"temperature": temperature, "space": encoder.space}
    result |= measure(scores.probability, faces, samples=samples)
    told = [
        words_report(encoder, bank, images, faces, texts, draws=draws, ensemble=ensemble, show_texts=show_texts)
        for texts in words
    ]
    return result, told


def _held_out_words(card: Mapping[str, Any] | None) -> bool:
    """Return whether the texts held out of the lexicon were kept from the training of a backbone."""
    return card is None or bool(card.get("recipe", {}).get("text", {}).get("hold_out", True))


def _peer_on(peer: Peer, faces: FaceSet, *, samples: int, say: Say) -> dict[str, Any]:
    say(f"{peer.name} on {len(faces)} faces of {faces.name}")
    probability, classes, facts = run_peer(peer, faces.images, say=say)
    figures = measure(on_classes(probability, classes, faces.labels.names), faces, samples=samples)
    return {
        "backbone": peer.name,
        "kind": "peer",
        "set": faces.name,
        "classes": list(classes),
        "facts": facts,
        **figures,
    }
