"""``vlfer train-backbone``: from an archive of faces and the lexicon to a folder that loads as a backbone.

Stages, each kept in the run folder and skipped when its result is there: mesh, image tower, text tower, features,
alignment, calibration. A stopped run is resumed by the same command.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlfer.calibration import FAMILIES, fit_calibration
from vlfer.config import write_atomically
from vlfer.errors import ConfigError
from vlfer.metrics import fit_temperature, risk_coverage, softmax, summary, war_uar
from vlfer.models.bundled import TEXT_PACKAGE, build_bundled, load_bundled, save_bundled, text_folder
from vlfer.models.face_tower import BRANCH_SIZE, FaceTower, timm_name
from vlfer.models.hf import loads_quietly
from vlfer.models.openclip import OpenClipEncoder
from vlfer.scoring import score
from vlfer.text.bank import Ensemble, TextBank
from vlfer.text.labels import load_label_set
from vlfer.text.lexicon import load_training_lexicon
from vlfer.text.sentences import class_sentences
from vlfer.training.align_stage import CLEARLY, Aligner, FaceFeatures, TextFeatures, align, expected_geometry
from vlfer.training.augment import augment
from vlfer.training.data import Split, VotedFaces, load_labelled_jpegs, load_voted_faces, split_by_content
from vlfer.training.geometry import measure, mesh_of_crops
from vlfer.training.image_stage import (
    PIXEL_MEAN,
    PIXEL_STD,
    Geometry,
    ImageStage,
    resize_faces,
    sampling_weights,
    standardise,
    to_pixels,
    vote_logits,
)
from vlfer.training.recipe import BackboneRecipe
from vlfer.training.text_stage import adapt_text_tower, pool_texts
from vlfer.types import Embedding, FloatArray, IntArray, Label, LabelSet, UInt8Array

_log = logging.getLogger(__name__)
Hook = Callable[[str, int, int], None]
DIMENSION = 384
_FER_LABELS = "ferplus8"


def train_backbone(recipe: BackboneRecipe, folder: Path, *, hook: Hook | None = None) -> Path:
    """Run all stages and return the model folder, ``folder / "model"``.

    Args:
        recipe: The configuration; a run folder belongs to one configuration.
        folder: Run folder: state, logs, results.
        hook: Called with (message, done, total).

    Raises:
        DataError: If the data are missing or malformed, or the loss is no longer finite.
        ConfigError: If ``folder`` holds a run of another configuration.
        BackboneError: If the starting weights are missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, recipe)
    torch.set_num_threads(recipe.threads)
    faces = load_voted_faces(recipe.data.train, classes=recipe.classes)
    split = split_by_content(faces.images, validation=recipe.data.validation, test=recipe.data.test, seed=recipe.seed)
    train, geometry = _training_part(recipe, faces, split["train"], folder, hook=hook)
    tower = _image_tower(recipe, train, geometry, faces.take(split["validation"]), folder, hook=hook)
    transformer, tokenizer = _text_tower(recipe, folder, hook=hook)
    aligner = _align(recipe, train, geometry, tower, transformer, tokenizer, folder, hook=hook)
    model = assemble(recipe, tower, transformer, aligner)
    return _finish(recipe, model, faces, split, folder)


def _image_tower(
    recipe: BackboneRecipe,
    train: VotedFaces,
    geometry: Geometry,
    validation: VotedFaces,
    folder: Path,
    *,
    hook: Hook | None,
) -> FaceTower:
    """Train the networks one after another and put them side by side."""
    tower = FaceTower(tuple(recipe.image))
    for name in recipe.image:
        stage = ImageStage(recipe, name, train, geometry, folder)
        stage.run(hook=hook, on_epoch=_epoch_report(recipe, BRANCH_SIZE[name], validation))
        tower.branches[name].load_state_dict(stage.averaged().tower.state_dict())
    return tower.eval().to(memory_format=torch.channels_last)


def _claim(folder: Path, recipe: BackboneRecipe) -> None:
    path, text = folder / "recipe.json", recipe.model_dump_json(indent=2)
    if path.exists() and path.read_text() != text:
        raise ConfigError(
            f"{folder} holds a run of another configuration.",
            why="Its state would not fit.",
            fix="--out another folder, or remove this one.",
        )
    write_atomically(path, text.encode())


def _training_part(
    recipe: BackboneRecipe, faces: VotedFaces, rows: Any, folder: Path, *, hook: Hook | None
) -> tuple[VotedFaces, Geometry]:
    path = folder / "mesh.safetensors"
    if not path.exists():
        mesh = mesh_of_crops(faces.images, hook=(lambda i, n: hook("face mesh", i, n)) if hook else None)
        save_file({"mesh": torch.from_numpy(mesh)}, str(path))
    measured = measure(load_file(str(path))["mesh"].numpy())
    if recipe.data.leave_out:
        keep = faces.rows_without(recipe.data.leave_out)
        rows = rows[np.isin(rows, keep)]
        faces = faces.without_votes_for(recipe.data.leave_out)
    return faces.take(rows), Geometry.standardise(measured[rows])


def _epoch_report(
    recipe: BackboneRecipe, size: int, validation: VotedFaces
) -> Callable[[ImageStage, dict[str, Any]], None]:
    """Return what adds validation figures, without and with half of the class prior, to the log of an epoch."""
    sets = {"validation": (resize_faces(validation.images, size=size), validation.majority)}
    if recipe.data.out_of_domain:
        images, labels = load_labelled_jpegs(recipe.data.out_of_domain)
        truth = np.array([recipe.classes.index(label) for label in labels], np.int64)
        sets["out_of_domain"] = (resize_faces(images, size=size), truth)

    def report(stage: ImageStage, row: dict[str, Any]) -> None:
        model = stage.averaged()
        natural = np.log(np.maximum(stage.faces.distribution.mean(axis=0), 1e-6))
        for name, (pixels, truth) in sets.items():
            logits = vote_logits(model, pixels)
            for share in (0.0, 0.5):
                war, uar = war_uar((logits + share * natural).argmax(axis=1), truth)
                row[f"{name}_prior{share:g}"] = f"{war:.4f}/{uar:.4f}"

    return report


def _text_tower(recipe: BackboneRecipe, folder: Path, *, hook: Hook | None) -> tuple[nn.Module, Any]:
    from transformers import AutoModel, AutoTokenizer

    packaged_text = str(text_folder())
    tokenizer = AutoTokenizer.from_pretrained(packaged_text, local_files_only=True)
    with loads_quietly():
        transformer = AutoModel.from_pretrained(packaged_text, add_pooling_layer=False, local_files_only=True).eval()
    packaged = recipe.text.start == "packaged"
    if packaged and not recipe.text.lora_rank:
        return transformer, tokenizer
    path = folder / "text_tower.safetensors" if packaged else Path(recipe.text.start)
    if not packaged and not path.is_file():
        raise ConfigError(f"text.start, {path}, does not exist.", fix="--set text.start=packaged")
    if not path.exists():
        lexicon = load_training_lexicon(hold_out=recipe.text.hold_out)
        adapt_text_tower(
            transformer, tokenizer, lexicon, recipe.text, seed=recipe.seed, precision=recipe.precision, hook=hook
        )
        save_file({k: v.contiguous().clone() for k, v in transformer.state_dict().items()}, str(path))
    transformer.load_state_dict(load_file(str(path)))
    return transformer.eval(), tokenizer


def _align(
    recipe: BackboneRecipe,
    train: VotedFaces,
    geometry: Geometry,
    tower: FaceTower,
    transformer: nn.Module,
    tokenizer: Any,
    folder: Path,
    *,
    hook: Hook | None,
) -> Aligner:
    path = folder / "features.safetensors"
    if not path.exists():
        features, shapes = _image_features(recipe, train, geometry, tower, hook=hook)
        save_file({"features": features, "geometry": shapes}, str(path))
    stored = load_file(str(path))
    balance = next(iter(recipe.image.values())).balance
    faces = FaceFeatures(
        features=stored["features"].float(),
        votes=torch.from_numpy(train.distribution),
        geometry=stored["geometry"].float(),
        sampling=sampling_weights(train.majority, classes=len(train.classes), balance=balance).astype(np.float64),
        natural=train.distribution.mean(axis=0),
    )
    texts = _text_features(recipe, transformer, tokenizer)
    return align(faces, texts, recipe.align, dimension=DIMENSION, seed=recipe.seed, hook=hook)


@torch.inference_mode()
def _image_features(
    recipe: BackboneRecipe, train: VotedFaces, geometry: Geometry, tower: FaceTower, *, hook: Hook | None
) -> tuple[Tensor, Tensor]:
    """Return (V, N, D) float16 features and (V, N, G) geometry: one plain view, the others augmented."""
    size, pixels = tower.image_size, to_pixels(train.images)
    views, shapes = [], []
    for view in range(recipe.align.views):
        rows, shape = [], geometry.plain.copy()
        generator = torch.Generator().manual_seed(recipe.seed * 1000 + view)
        for start in range(0, len(pixels), 128):
            part = pixels[start : start + 128]
            if view == 0:
                part = resize_faces(train.images[start : start + 128], size=size)
            else:
                part, flip = augment(part, size=size, generator=generator)
                chosen = np.flatnonzero(flip.numpy()) + start
                shape[chosen] = geometry.mirrored[chosen]
            rows.append(tower.features_of_grey(standardise(part)).half())
            if hook:
                hook("features", view * len(pixels) + start, recipe.align.views * len(pixels))
        views.append(torch.cat(rows))
        shapes.append(torch.from_numpy(shape))
    return torch.stack(views), torch.stack(shapes)


def _text_features(recipe: BackboneRecipe, transformer: nn.Module, tokenizer: Any) -> TextFeatures:
    """Return features of the lexicon: every text as it is, and words and phrases in one template each as well."""
    lexicon = load_training_lexicon(hold_out=recipe.text.hold_out)
    rng = np.random.default_rng(recipe.seed)
    texts, rows = list(lexicon.texts), list(range(len(lexicon)))
    for i, (text, kind) in enumerate(zip(lexicon.texts, lexicon.kinds, strict=True)):
        if kind not in ("action", "caption", "definition"):
            sentences = class_sentences(Label(text), templates="grammatical")[1:]
            texts.append(sentences[int(rng.integers(len(sentences)))])
            rows.append(i)
    votes, unseen = lexicon.votes[rows], None
    if recipe.data.leave_out:
        left_out = [recipe.classes.index(name) for name in recipe.data.leave_out]
        unseen = np.where(np.isin(votes.argmax(axis=1), left_out), votes.argmax(axis=1), -1)
        unseen[votes.max(axis=1) < CLEARLY] = -1
        votes = votes.copy()
        votes[:, left_out] = 0
        rest = votes.sum(axis=1, keepdims=True)
        votes = np.where(rest >= 0.5, votes / np.maximum(rest, 1e-6), 0).astype(np.float32)
    units = [lexicon.action_units[i] for i in rows]
    return TextFeatures(
        features=pool_texts(transformer, tokenizer, texts),
        votes=torch.from_numpy(votes),
        geometry=torch.from_numpy(expected_geometry(units)),
        unseen=None if unseen is None else torch.from_numpy(unseen),
    )


def open_clip_config(recipe: BackboneRecipe) -> dict[str, Any]:
    """Return the open_clip configuration of what this recipe trains."""
    return {
        "model_cfg": {
            "embed_dim": DIMENSION,
            "vision_cfg": {
                "timm_model_name": timm_name(tuple(recipe.image)),
                "timm_pool": "",
                "timm_proj": "linear",
                "image_size": max(BRANCH_SIZE[name] for name in recipe.image),
            },
            "text_cfg": {
                "hf_model_name": TEXT_PACKAGE,
                "hf_tokenizer_name": TEXT_PACKAGE,
                "hf_pooler_type": "mean_pooler",
                "hf_proj_type": "mlp",
                "context_length": 64,
            },
        },
        "preprocess_cfg": {"mean": [PIXEL_MEAN] * 3, "std": [PIXEL_STD] * 3, "interpolation": "bicubic"},
    }


def assemble(recipe: BackboneRecipe, tower: FaceTower, transformer: nn.Module, aligner: Aligner) -> nn.Module:
    """Build the open_clip model and put the trained parts into it."""
    model = build_bundled(open_clip_config(recipe))
    parts = cast(Any, model)
    parts.visual.trunk.load_state_dict(tower.state_dict())
    parts.visual.head.proj.weight.data = aligner.image.weight.data.clone()
    parts.text.transformer.load_state_dict(transformer.state_dict())
    for position in (0, 2):
        parts.text.proj[position].weight.data = cast(Any, aligner.text)[position].weight.data.clone()
    parts.logit_scale.data = aligner.logit_scale.data.clone()
    return model.eval()


def _finish(
    recipe: BackboneRecipe, model: nn.Module, faces: VotedFaces, split: Mapping[Split, IntArray], folder: Path
) -> Path:
    """Save, measure what was saved, and save again with temperature and figures in the card."""
    config, target = open_clip_config(recipe), folder / "model"
    save_bundled(model, target, config=config, card={})
    encoder = load_bundled(target)
    validation, test = faces.take(split["validation"]), faces.take(split["test"])
    labels = load_label_set(_FER_LABELS)
    ordered = LabelSet(tuple(labels.labels[labels.index(name)] for name in recipe.classes), name=labels.name)
    chosen_on = _similarity(encoder, validation.images, ordered)
    temperature = fit_temperature(chosen_on, validation.majority)
    families: dict[str, FloatArray] = {
        f: _similarity(encoder, validation.images, ordered, ensemble=f) for f in FAMILIES if f != "all"
    }
    about = {"part": "validation", "labels": ordered.name, "sha256": faces.sha256}
    card = {
        "temperature": temperature,
        "calibration": fit_calibration({**families, "all": chosen_on}, validation.votes, fitted_on=about),
        "licence": "Apache-2.0 (weights trained on FER2013/FER+ faces, from SFace and MiniLM, both Apache-2.0)",
        "note": "perceived expression, not felt emotion",
        "recipe": json.loads(recipe.model_dump_json(exclude={"data": {"train", "out_of_domain"}})),
        "data_sha256": faces.sha256,
        "labels_sha256": ordered.sha256,
        "figures": {
            "validation": summary(chosen_on, temperature, validation.votes, recipe.classes),
            "test": summary(_similarity(encoder, test.images, ordered), temperature, test.votes, recipe.classes),
        },
        "risk_coverage": risk_coverage(softmax(chosen_on / temperature), validation.majority),
    }
    if recipe.data.out_of_domain:
        images, names = load_labelled_jpegs(recipe.data.out_of_domain)
        votes = np.array([[float(name == label) for name in recipe.classes] for label in names], np.float32)
        figures = summary(_similarity(encoder, images, ordered), temperature, votes, recipe.classes)
        cast(dict[str, Any], card["figures"])["out_of_domain"] = figures
    save_bundled(model, target, config=config, card=card)
    _log.info("%s", json.dumps(card["figures"]))
    return target


def _similarity(
    encoder: OpenClipEncoder, images: list[UInt8Array] | UInt8Array, labels: LabelSet, *, ensemble: Ensemble = "all"
) -> FloatArray:
    """Return (N, C) similarities of crops of any size with the labels, as in use."""
    bank = TextBank(encoder)
    rows = []
    for image in images:
        rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
        rows.append(encoder.encode_images(rgb[None]).vectors)
    faces = Embedding(np.concatenate(rows), encoder.space)
    return score(faces, labels, bank, temperature=1.0, ensemble=ensemble).similarity
