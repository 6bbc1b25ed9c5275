"""From a path or an array to a report: the wiring of reading, finding, encoding, scoring and deciding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import numpy as np

from vlfer.calibration import default_temperature
from vlfer.clips import ClipTools, analyse_clip, tell_clip, watch_clip
from vlfer.config import PredictConfig, cache_dir, load_config
from vlfer.correct import config_bias, temperature_for
from vlfer.errors import NoFaceError
from vlfer.faces.align import crop_face
from vlfer.faces.detect import Effort, FaceDetector, build_detector
from vlfer.faces.find import find_faces
from vlfer.faces.follow import Follows
from vlfer.models.adapter import with_adapter_labels
from vlfer.models.encoder import Encoder, load_encoder
from vlfer.photos import Photo, tell_photos
from vlfer.provenance import build_provenance
from vlfer.reporting import ONE_LABEL, Analysis, failed_report
from vlfer.scoring import score
from vlfer.sources import Clip, Source, open_source, source_name
from vlfer.stream import EmbeddedStream
from vlfer.text.bank import SentenceBank, TextBank
from vlfer.text.labels import resolve_label_spec
from vlfer.types import Embedding, Face, Frames, LabelSet, Report, Scores, UInt8Array
from vlfer.video.read import expand_paths

T = TypeVar("T")
Hook = Callable[[str, int, int], None]
"""Told (step, done, total): step is "sources" or "frames"; total is 0 where it is not known."""
OnError = Literal["record", "raise"]
MOST_PENDING = 256


class EmotionPipeline:
    """Everything loaded that is needed to answer for one source after another; `load_pipeline` builds it.

    ``bank`` lives in the space of ``encoder``; ``detector`` may be None where images are taken whole.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        labels: LabelSet,
        bank: SentenceBank,
        detector: FaceDetector | None,
        config: PredictConfig,
    ) -> None:
        self.encoder = encoder
        self.labels = labels
        self.bank = bank
        self.detector = detector
        self.config = config
        fitted = config.temperature or default_temperature(encoder, ensemble=config.ensemble)
        self.temperature = temperature_for(fitted, len(labels), by=config.temperature_by)
        self.provenance = build_provenance(
            encoder, temperature=self.temperature, labels=labels, config=config.model_dump(mode="json")
        )
        bias = config_bias(config, bank, labels, temperature=self.temperature)
        self._scoring: Any = {"ensemble": config.ensemble, "pooling": config.pooling, "prior": bias}
        self._deciding: Any = {"threshold": config.threshold, "tie_margin": config.tie_margin, "top": config.top}

    @overload  # a str is a sequence of str too, and is meant as a path
    def predict(  # type: ignore[overload-overlap]
        self, source: Source, *, hook: Hook | None = None, on_error: OnError = "record"
    ) -> Report: ...

    @overload
    def predict(
        self, source: Sequence[Source], *, hook: Hook | None = None, on_error: OnError = "record"
    ) -> list[Report]: ...

    def predict(
        self, source: Source | Sequence[Source], *, hook: Hook | None = None, on_error: OnError = "record"
    ) -> Report | list[Report]:
        """Tell which expression each face shows.

        Args:
            source: A path, an image (H, W, 3) or video (T, H, W, 3) array, `Frames`, or a list of these. Folders and
                globs are expanded inside a list.
            hook: Told about progress.
            on_error: ``record``: a source that fails becomes a report with its error; ``raise``: it ends the run.

        Returns:
            One report, or a list of reports in the order of the sources.

        Raises:
            VlferError: Only with ``on_error="raise"``.
        """
        if isinstance(source, (str, Path, np.ndarray, Frames, Clip)):
            (analysis,) = self.analyse([source], hook=hook, on_error=on_error)
            return analysis.report
        sources = list(chain.from_iterable(expand_paths([s]) if isinstance(s, (str, Path)) else [s] for s in source))
        return [analysis.report for analysis in self.analyse(sources, hook=hook, on_error=on_error)]

    def analyse(
        self,
        sources: Sequence[Source],
        *,
        hook: Hook | None = None,
        on_error: OnError = "record",
        journal_dir: Path | None = None,
    ) -> Iterator[Analysis]:
        """Yield one analysis a source, in order, as soon as it is known; the faces of many images share a batch.

        Args:
            sources: As in `predict`, already expanded.
            hook: Told about progress.
            on_error: As in `predict`.
            journal_dir: Where a video that is interrupted leaves what it had, and goes on from; None keeps nothing.

        Raises:
            VlferError: Only with ``on_error="raise"``.
            KeyboardInterrupt: After the analysis, as far as it came, of a video in which the user pressed Ctrl-C.
        """
        pending: list[Photo] = []
        for number, source in enumerate(sources):
            opened = self._guard(source, partial(self._open, source), on_error=on_error)
            if isinstance(opened, Clip):
                yield from self._finish(pending, on_error=on_error)
                pending = []
                analyse = partial(self._video, opened, hook=hook, journal_dir=journal_dir)
                clip = self._guard(source, analyse, on_error=on_error)
                yield Analysis(clip) if isinstance(clip, Report) else clip
                if isinstance(clip, Analysis) and clip.was_interrupted:
                    raise KeyboardInterrupt
            else:
                pending.append(Photo(opened.source, failure=opened) if isinstance(opened, Report) else opened)
            if sum(len(row.crops) for row in pending) >= self.config.batch_size or len(pending) >= MOST_PENDING:
                yield from self._finish(pending, on_error=on_error)
                pending = []
            if hook is not None:
                hook("sources", number + 1, len(sources))
        yield from self._finish(pending, on_error=on_error)

    def _guard(self, source: Source, step: Callable[[], T], *, on_error: OnError) -> T | Report:
        """Run a step; turn whatever it raises into a report, so that the other sources are still done."""
        try:
            return step()
        except Exception as error:
            if on_error == "raise":
                raise
            return failed_report(source_name(source), error, provenance=self.provenance)

    def _open(self, source: Source) -> Photo | Clip:
        config = self.config
        opened = open_source(source, fps=config.fps, start_s=config.start_s, end_s=config.end_s)
        if isinstance(opened, Clip):
            return opened
        pixels = opened.pixels[0]
        faces, note = self.find(pixels, effort="thorough")
        if not faces:
            raise NoFaceError("No face was found.", fix="--faces whole, if the image as a whole is one face.")
        return Photo(source_name(source), faces, [self.crop(pixels, face) for face in faces], note)

    def find(self, pixels: UInt8Array, *, effort: Effort) -> tuple[list[Face], str]:
        """Return the faces of one image (H, W, 3), as configured, and a note on how they were found."""
        return find_faces(pixels, detector=self.detector, mode=self.config.faces, effort=effort)

    def crop(self, pixels: UInt8Array, face: Face) -> UInt8Array:
        """Cut out one face as the encoder wants it, (S, S, 3)."""
        return crop_face(pixels, face, size=self.encoder.spec.image_size, margin=self.config.margin)

    def encode(self, pixels: UInt8Array) -> Embedding:
        """Encode N crops (N, S, S, 3)."""
        return self.encoder.encode_images(pixels, batch_size=self.config.batch_size)

    def score(self, images: Embedding) -> Scores:
        """Compare N encoded faces with the labels."""
        return score(images, self.labels, self.bank, temperature=self.temperature, **self._scoring)

    def _finish(self, rows: list[Photo], *, on_error: OnError) -> Iterator[Analysis]:
        told: Any = {"provenance": self.provenance, "note": self._note, "deciding": self._deciding}
        guard = partial(self._guard, "batch", on_error=on_error)
        return tell_photos(rows, score=lambda crops: self.score(self.encode(np.stack(crops))), guard=guard, **told)

    def _note(self, *notes: str) -> str:
        return "; ".join(note for note in (*notes, ONE_LABEL if len(self.labels) == 1 else "") if note)

    def clip_tools(self) -> ClipTools:
        """Return what looks at a clip, for streams that are not files."""
        follower = self.detector if isinstance(self.detector, Follows) else None
        find = partial(self.find, effort="fast")
        return ClipTools(find, follower, self.crop, self.encode, self.score, self.encoder, self.config)

    def _video(self, clip: Clip, *, hook: Hook | None, journal_dir: Path | None) -> Analysis:
        on_frames = None if hook is None else partial(_tell_frames, hook, clip.n_frames)
        told: Any = {"provenance": self.provenance, "note": self._note}
        return analyse_clip(clip, self.clip_tools(), on_frames=on_frames, journal_dir=journal_dir, **told)

    def watch(self, clip: Clip, *, hook: Hook | None = None) -> EmbeddedStream:
        """Find, follow and encode the faces of an opened video; `tell` scores them, for any labels."""
        on_frames = None if hook is None else partial(_tell_frames, hook, clip.n_frames)
        return watch_clip(clip, self.clip_tools(), on_frames=on_frames)

    def tell(self, clip: Clip, stream: EmbeddedStream) -> Analysis:
        """Score and cut into segments what `watch` saw.

        Raises:
            NoFaceError: If no frame shows a face.
        """
        return tell_clip(clip, stream, self.clip_tools(), provenance=self.provenance, note=self._note)


def _tell_frames(hook: Hook, total: int, done: int) -> None:
    hook("frames", done, total)


def load_pipeline(
    backbone: str | None = None,
    *,
    labels: str | Path | Sequence[str] | LabelSet | None = None,
    config_file: str | Path | None = None,
    **settings: Any,
) -> EmotionPipeline:
    """Load everything that `EmotionPipeline` needs.

    Args:
        backbone: See `vlfer.models.registry`; "bundled" unless configured otherwise.
        labels: A shipped set's name, a YAML file, words separated by commas, a list of words, or a `LabelSet`. Unless
            configured otherwise those of the adapter, or "ekman7".
        config_file: YAML file of settings.
        settings: Fields of `vlfer.config.PredictConfig`: ``faces="whole"``, ``device="cuda"``, ``top=3``.

    Raises:
        PromptError: If the labels are unknown, empty, doubled or too long.
        ConfigError: If a setting is unknown or out of range.
        BackboneError: If the backbone is unknown or its weights cannot be loaded.
        AdapterError: If the adapter is damaged, or was made for another backbone.
        EnvironmentProblem: If the device or a library is missing.
    """
    named = str(labels) if labels is None or isinstance(labels, (str, Path)) else "given as objects"
    overrides = {"backbone": backbone, "labels": None if labels is None else named, **settings}
    config = with_adapter_labels(load_config(config_file, overrides=overrides))
    label_set = resolve_label_spec(config.labels if labels is None else labels)
    detector = None if config.faces == "whole" else build_detector(config.detector, model_file=config.detector_file)
    encoder = load_encoder(config.backbone, device=config.device, adapter=config.adapter)
    bank = TextBank(encoder, cache_dir=cache_dir())
    return EmotionPipeline(encoder, labels=label_set, bank=bank, detector=detector, config=config)
