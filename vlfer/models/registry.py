"""Which backbones there are: one row each, and the grammar of backbone names. Imports no torch.

A name is one of

- ``bundled``, or ``bundled:FOLDER`` for a model trained by ``vlfer train-backbone``
- a row of the table: ``ViT-B-32/openai``, ``openai/clip-vit-base-patch32``
- ``open_clip:ARCH/TAG``, ``open_clip:FOLDER`` (with open_clip_config.json)
- ``open_clip:ARCH/TAG@FILE`` (published weights, copied by hand), ``open_clip:ARCH@FILE`` (any other checkpoint)
- ``hf:ORG/NAME`` or ``hf:FOLDER``
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from vlfer.errors import BackboneError, did_you_mean

Library = Literal["open_clip", "transformers"]
Interpolation = Literal["bilinear", "bicubic"]
Origin = Literal["bundled", "hub", "file", "folder"]
Triple = tuple[float, float, float]

_CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)
_HALF: Triple = (0.5, 0.5, 0.5)
_ZERO: Triple = (0.0, 0.0, 0.0)
_ONE: Triple = (1.0, 1.0, 1.0)

# Full-match patterns of module names. Each names the image tower first, so that the text tower and with it every
# cached text embedding stays as it is. nn.MultiheadAttention is left out: unmerged LoRA on it is not thread-safe.
LORA_OPEN_CLIP_VIT = r"visual\.transformer\.resblocks\.\d+\.mlp\.(c_fc|c_proj)"
LORA_TIMM_VIT = r"visual\.trunk\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))"
LORA_TIMM_FASTVIT = r"visual\.trunk\.stages\.\d+\.blocks\.\d+\.mlp\.(fc1|fc2)"
LORA_TIMM_ANY = r"visual\.trunk\..*\.(qkv|proj|fc1|fc2|conv_pw|conv_pwl|pointwise)"
LORA_TRANSFORMERS = r"vision_model\.encoder\.layers\.\d+\.(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.(fc1|fc2))"


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """One backbone: where it comes from and how its pixels are prepared.

    For a name outside the table the fields from ``image_size`` to ``dimension`` are empty until the weights are
    loaded; ``Encoder.spec`` is always complete.

    Attributes:
        name: What the user types, and the first part of the space id.
        library: Which library builds it.
        source: Architecture (open_clip), hub name (transformers), or a folder.
        tag: Weights tag of open_clip; empty elsewhere.
        weights_sha256: Expected hash of the weights, or None where it is not pinned.
        image_size: Side of the square input in pixels.
        mean: Per-channel mean in 0..1, RGB.
        std: Per-channel standard deviation in 0..1, RGB.
        interpolation: How crops are resized.
        dimension: D of the embedding.
        licence: Licence of the weights.
        lora_targets: Regular expression that a full module name must match to get LoRA.
        logit_temperature: Overrides the temperature learned by the model, or None.
        note: What a user should know before choosing it.
        origin: Where the weights lie.
        file: The checkpoint, where ``origin`` is "file".
        calibration: What `vlfer.calibration.fit_calibration` found on held-out faces, or None.
    """

    name: str
    library: Library
    source: str
    tag: str = ""
    weights_sha256: str | None = None
    image_size: int = 0
    mean: Triple = _ZERO
    std: Triple = _ONE
    interpolation: Interpolation = "bicubic"
    dimension: int = 0
    licence: str = "unknown"
    lora_targets: str = ""
    logit_temperature: float | None = None
    note: str = ""
    origin: Origin = "hub"
    file: str = ""
    calibration: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    @property
    def is_complete(self) -> bool:
        """Whether preprocessing and dimension are known."""
        return self.image_size > 0 and self.dimension > 0


def _clip(arch: str, tag: str, dimension: int, *, licence: str = "MIT", note: str = "") -> BackboneSpec:
    return BackboneSpec(
        name=f"{arch}/{tag}", library="open_clip", source=arch, tag=tag, image_size=224, mean=_CLIP_MEAN,
        std=_CLIP_STD, interpolation="bicubic", dimension=dimension, licence=licence,
        lora_targets=LORA_OPEN_CLIP_VIT, note=note,
    )  # fmt: skip


def _siglip(arch: str, dimension: int, *, size: int = 224, note: str = "") -> BackboneSpec:
    return BackboneSpec(
        name=f"{arch}/webli", library="open_clip", source=arch, tag="webli", image_size=size, mean=_HALF, std=_HALF,
        interpolation="bicubic", dimension=dimension, licence="Apache-2.0", lora_targets=LORA_TIMM_VIT, note=note,
    )  # fmt: skip


def _mobile(arch: str, tag: str, *, mean: Triple, std: Triple) -> BackboneSpec:
    return BackboneSpec(
        name=f"{arch}/{tag}", library="open_clip", source=arch, tag=tag, image_size=256, mean=mean, std=std,
        interpolation="bilinear", dimension=512, licence="apple-amlr", lora_targets=LORA_TIMM_FASTVIT,
        note="Small and fast; the licence allows research only.",
    )  # fmt: skip


def _hf_clip(source: str, dimension: int, *, size: int = 224) -> BackboneSpec:
    return BackboneSpec(
        name=source, library="transformers", source=source, image_size=size, mean=_CLIP_MEAN, std=_CLIP_STD,
        interpolation="bicubic", dimension=dimension, licence="MIT", lora_targets=LORA_TRANSFORMERS,
    )  # fmt: skip


def _hf_siglip(source: str, dimension: int, *, interpolation: Interpolation) -> BackboneSpec:
    return BackboneSpec(
        name=source, library="transformers", source=source, image_size=224, mean=_HALF, std=_HALF,
        interpolation=interpolation, dimension=dimension, licence="Apache-2.0", lora_targets=LORA_TRANSFORMERS,
    )  # fmt: skip


_ROWS = (
    _clip("ViT-B-32", "openai", 512, note="The CLIP of most published baselines."),
    _clip("ViT-B-16", "openai", 512),
    _clip("ViT-L-14", "openai", 768, note="Large: slow without a GPU."),
    _clip("ViT-B-32", "laion2b_s34b_b79k", 512),
    _clip("ViT-B-16", "laion2b_s34b_b88k", 512),
    replace(_clip("ViT-L-14", "laion2b_s32b_b82k", 768), mean=_HALF, std=_HALF),
    _clip("ViT-B-16", "datacomp_xl_s13b_b90k", 512),
    _siglip("ViT-B-16-SigLIP", 768),
    _siglip("ViT-B-16-SigLIP2", 768, note="Reads many languages."),
    _mobile("MobileCLIP-S1", "datacompdr", mean=_ZERO, std=_ONE),
    _mobile("MobileCLIP-S2", "datacompdr", mean=_ZERO, std=_ONE),
    _hf_clip("openai/clip-vit-base-patch32", 512),
    _hf_clip("openai/clip-vit-base-patch16", 512),
    _hf_clip("openai/clip-vit-large-patch14", 768),
    _hf_siglip("google/siglip-base-patch16-224", 768, interpolation="bicubic"),
    _hf_siglip("google/siglip2-base-patch16-224", 768, interpolation="bilinear"),
)

REGISTRY: dict[str, BackboneSpec] = {row.name: row for row in _ROWS}


def backbone_names() -> tuple[str, ...]:
    """Return the names that need no further explanation: ``bundled`` and the rows of the table."""
    return ("bundled", *REGISTRY)


def find_backbone(name: str) -> BackboneSpec:
    """Return the row that ``name`` means, or a new one for a name outside the table.

    Reads no weights and asks no server.

    Raises:
        BackboneError: If the name follows no known form, or a file or folder in it does not exist.
    """
    name = name.strip()
    if name in REGISTRY:
        return REGISTRY[name]
    scheme, _, rest = name.partition(":")
    if name == "bundled" or (scheme == "bundled" and rest):
        return BackboneSpec(name="bundled", library="open_clip", source=rest, origin="bundled")
    if scheme == "open_clip" and rest:
        return _find_open_clip(rest)
    if scheme == "hf" and rest:
        return _find_transformers(rest)
    raise BackboneError(
        f"The backbone {name!r} is unknown.",
        why=" ".join(part for part in (did_you_mean(name, backbone_names()), f"Known: {', '.join(backbone_names())}.",
                                       "Others: open_clip:ARCH/TAG, open_clip:ARCH@FILE, hf:ORG/NAME, hf:FOLDER.")
                     if part),
        fix="--backbone bundled",
    )  # fmt: skip


def _find_open_clip(rest: str) -> BackboneSpec:
    if "@" in rest:
        return _find_checkpoint(rest)
    folder = Path(rest).expanduser()
    if folder.is_dir():
        if not (folder / "open_clip_config.json").is_file():
            raise BackboneError(
                f"The folder {rest!r} holds no open_clip_config.json.", why="open_clip cannot tell the architecture."
            )
        return BackboneSpec(name="open_clip:folder", library="open_clip", source=str(folder), origin="folder")
    return _find_tag(rest)


def _find_checkpoint(rest: str) -> BackboneSpec:
    arch, _, file = rest.partition("@")
    path = Path(file).expanduser()
    if not arch or not path.is_file():
        raise BackboneError(
            f"The checkpoint {file!r} of backbone 'open_clip:{rest}' is not a file.",
            fix="--backbone open_clip:ViT-B-32/openai@/path/to/weights.safetensors",
        )
    if "/" in arch:
        return replace(_find_tag(arch), origin="file", file=str(path))
    return BackboneSpec(name=f"open_clip:{arch}", library="open_clip", source=arch, origin="file", file=str(path))


def _find_tag(rest: str) -> BackboneSpec:
    arch, _, tag = rest.rpartition("/")
    if not arch or not tag:
        raise BackboneError(
            f"The backbone 'open_clip:{rest}' names no weights.",
            why="open_clip needs an architecture and a tag, an architecture and a file, or an existing folder.",
            fix="--backbone open_clip:ViT-B-32/openai",
        )
    listed = REGISTRY.get(rest)
    if listed is not None and listed.library == "open_clip":
        return listed
    return BackboneSpec(name=rest, library="open_clip", source=arch, tag=tag)


def _find_transformers(rest: str) -> BackboneSpec:
    folder = Path(rest).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BackboneError(
                f"The folder {rest!r} holds no config.json.", why="It is not a model saved by transformers."
            )
        return BackboneSpec(name="hf:folder", library="transformers", source=str(folder), origin="folder")
    listed = REGISTRY.get(rest)
    if listed is not None and listed.library == "transformers":
        return listed
    if rest.startswith((".", "/", "~")) or rest.count("/") != 1:
        raise BackboneError(
            f"The backbone 'hf:{rest}' is neither a folder here nor a hub name.",
            why="A hub name has the form ORG/NAME.",
            fix="--backbone hf:openai/clip-vit-base-patch32",
        )
    return BackboneSpec(name=rest, library="transformers", source=rest)
