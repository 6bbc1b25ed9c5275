"""`vlfer prompts reference` and `vlfer prompts weigh`: what faces tell about words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlfer.cli.exits import say
from vlfer.errors import ConfigError, VlferError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlfer.types import UInt8Array

_AT_ONCE = 256


def reference(
    paths: Annotated[list[str], typer.Argument(help="Images of faces, folders, globs; no labels are needed.")],
    out: Annotated[Path, typer.Option(help="The file to write, such as faces.safetensors.")],
    faces: Annotated[Literal["detect", "whole", "auto"], typer.Option(help="How faces are found.")] = "auto",
    backbone: Annotated[str, typer.Option(help="See: vlfer backbones list.")] = "bundled",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the draw where there are many.")] = 0,
) -> None:
    """Keep the vectors of some faces, to take off what every label gets from faces in general.

    Take faces of the kind that will be met, some hundreds if possible. No picture is kept. Then, in a settings file:
    correction: prior, correction_strength: 0.5, reference: FILE. It serves any labels of the same backbone.
    """
    import numpy as np

    from vlfer.correct import save_reference, thin_faces
    from vlfer.faces.detect import build_detector
    from vlfer.models.encoder import load_encoder
    from vlfer.types import Embedding
    from vlfer.video.paths import expand_paths

    encoder = load_encoder(backbone, device=device)
    detector = None if faces == "whole" else build_detector("mediapipe")
    crops: list[UInt8Array] = []
    vectors = []
    skipped = 0
    for path in expand_paths(paths):
        try:
            crops += _crops(path, detector=detector, mode=faces, size=encoder.spec.image_size)
        except VlferError as error:
            skipped += 1
            say(f"{path}: {error.message}")
        if len(crops) >= _AT_ONCE:
            vectors.append(encoder.encode_images(np.stack(crops)).vectors)
            crops = []
    if crops:
        vectors.append(encoder.encode_images(np.stack(crops)).vectors)
    if not vectors:
        raise ConfigError("No face was found.", fix="--faces whole, if each image as a whole is one face.")
    found = Embedding(np.concatenate(vectors), encoder.space)
    kept = thin_faces(found, seed=seed)
    save_reference(kept, out)
    say(f"Written: {out} ({len(kept)} of {len(found)} faces, {skipped} files skipped)")


def _crops(path: Path, *, detector: Any, mode: Literal["detect", "whole", "auto"], size: int) -> Sequence[UInt8Array]:
    from vlfer.faces.align import crop_face
    from vlfer.faces.find import find_faces
    from vlfer.video.read import load_image

    pixels = load_image(path).pixels[0]
    found, _ = find_faces(pixels, detector=detector, mode=mode)
    return [crop_face(pixels, face, size=size) for face in found]


def weigh(
    labels: Annotated[str, typer.Argument(help="A shipped set or a YAML file, with descriptors.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Archive of faces with votes: images, votes, classes.")],
    out: Annotated[Path, typer.Option(help="The YAML file to write.")],
    backbone: Annotated[str, typer.Option(help="See: vlfer backbones list.")] = "bundled",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """Weigh each descriptor by how well it tells its own faces from the others; write the set with weights.

    All faces of the archive are used, so report figures on others. The labels are matched to its classes by name.
    """
    import numpy as np

    from vlfer.config import cache_dir, write_atomically
    from vlfer.models.encoder import load_encoder
    from vlfer.text.bank import TextBank
    from vlfer.text.generate import render_prompt_file, with_weights
    from vlfer.text.labels import load_label_set
    from vlfer.text.weigh import weigh_descriptors
    from vlfer.training.data import load_voted_faces

    if out.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"--out {out} is no YAML file.", fix="--out mine.yaml")
    label_set = load_label_set(labels)
    archive = np.load(data, allow_pickle=False) if data.is_file() else {"classes": []}
    known = tuple(str(name) for name in archive["classes"] if _knows(label_set, str(name)))
    found = load_voted_faces(data, classes=known)
    encoder = load_encoder(backbone, device=device)
    say(f"Encoding {len(found)} faces of {', '.join(known)}")
    images = encoder.encode_images(np.ascontiguousarray(np.repeat(found.images[..., None], 3, axis=3)), batch_size=64)
    truth = np.array([label_set.index(name) for name in known], np.int64)[found.majority]
    weighed = weigh_descriptors(TextBank(encoder, cache_dir=cache_dir()), label_set, images, truth)
    note = f"weights by use on {len(found)} faces of {data.name} ({found.sha256[:16]}) with {encoder.space}"
    write_atomically(out, render_prompt_file(with_weights(weighed, name=out.stem, note=note)).encode())
    say(f"Written: {out}")


def _knows(labels: Any, name: str) -> bool:
    try:
        labels.index(name)
    except VlferError:
        return False
    return True
