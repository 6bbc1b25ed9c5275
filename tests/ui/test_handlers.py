"""What the buttons do, without a browser."""

from __future__ import annotations

import json
import re
import threading
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlfer.errors import DataError, NoFaceError, PromptError, VideoReadError, VlferError
from vlfer.serve import ui_compare, ui_micro, ui_photo, ui_search, ui_video, ui_webcam
from vlfer.serve.ui_ask import described, joined, typed
from vlfer.serve.ui_engine import Engine, Limits, _until
from vlfer.text.labels import load_label_set, parse_labels
from vlfer.types import Face, Frames
from vlfer.video.read import load_image, probe_video

WORDS = parse_labels("a broad smile, furious shouting, weeping")


def test_photo_is_looked_at_once_and_then_asked_again(engine: Any, portrait: str, monkeypatch: Any) -> None:
    kept, page = ui_photo.look_at(engine, portrait, load_label_set("ekman7"))
    assert "happiness" in page
    assert "The 194 sentences compared" in page or "sentences compared" in page
    assert "relative to the 7 labels given" in page
    monkeypatch.setattr(engine.pipeline, "encode", None)
    again, page = ui_photo.ask_again(engine, WORDS, kept)
    assert again is not None
    assert again[1].predictions[0].label == "a broad smile"
    assert "an expression of a broad smile" in page


def test_scores_follow_descriptors_and_say_by_how_much(engine: Any, portrait: str) -> None:
    two = parse_labels("joy, delight")
    kept, _ = ui_photo.look_at(engine, portrait, two)
    turned = described("weeping with tears on the cheeks\nthe corners of the mouth drop", "delight", two)
    after, page = ui_photo.ask_again(engine, turned, kept)
    assert kept is not None
    assert after is not None
    assert dict(after[1].predictions[0].top)["delight"] < dict(kept[1].predictions[0].top)["delight"]
    assert "the corners of the mouth drop" in page
    assert "▼" in page
    assert "▲" in page


def test_an_abstention_is_explained(engine: Any, portrait: str) -> None:
    _, page = ui_photo.look_at(engine, portrait, parse_labels("a wide smile, a big smile, a large smile, a huge smile"))
    assert "No clear answer." in page


def test_typing_keeps_descriptors_of_words_that_stay() -> None:
    before = load_label_set("ekman7")
    after = typed("happiness, awe", before)
    assert after.labels[0].descriptors == before.labels[before.index("happiness")].descriptors
    assert after.labels[1].descriptors == ()
    assert parse_labels(joined(parse_labels('"relief, after a scare", awe'))).names[0] == "relief, after a scare"


@pytest.mark.parametrize("text", ["", " , ", "joy, joy", "123", "a" * 600])
def test_words_that_cannot_be_used(text: str) -> None:
    with pytest.raises(PromptError):
        typed(text, WORDS)


def test_too_many_labels_and_sentences(engine: Any, portrait: str) -> None:
    many = parse_labels(", ".join(f"mood {i}" for i in range(1000)))
    with pytest.raises(PromptError, match="1,000 labels"):
        ui_photo.look_at(engine, portrait, many)
    with pytest.raises(PromptError, match="100 sentences"):
        described("\n".join(f"line {i}" for i in range(100)), "weeping", WORDS)


def test_files_that_are_no_photo(engine: Any, tmp_path: Path) -> None:
    text = tmp_path / "photo.jpg"
    text.write_text("hello")
    with pytest.raises(VlferError, match="is not an image") as caught:
        ui_photo.look_at(engine, str(text), WORDS)
    assert str(tmp_path) not in caught.value.message
    from PIL import Image

    blank = tmp_path / "blank.png"
    Image.new("RGB", (640, 480), "white").save(blank)
    with pytest.raises(NoFaceError) as caught:
        ui_photo.look_at(engine, str(blank), WORDS)
    assert caught.value.why
    assert caught.value.fix
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(3 * 2**20))
    with pytest.raises(DataError, match=r"3 MB.*At most 2 MB"):
        ui_photo.look_at(engine, str(large), WORDS)


def test_reasons_are_shown_for_the_words_asked(engine: Any, portrait: str) -> None:
    kept, _ = ui_photo.look_at(engine, portrait, WORDS)
    page = ui_photo.say_why(engine, True, kept, WORDS)
    for part in ("a broad smile", "rather than", "an expression of a broad smile", "leads by", "Brows and eyes"):
        assert part in page
    assert page.count("data:image/jpeg") == 2
    assert page.count('scope="rowgroup"') == 2
    assert ui_photo.say_why(engine, False, kept, WORDS) == ""
    assert ui_photo.say_why(engine, True, None, WORDS) == ""
    few = Engine(engine.pipeline, limits=Limits(explained=0), pool=lambda: engine.uploads.pool)
    assert "The 1 smaller face" in ui_photo.say_why(few, True, kept, WORDS)


def test_no_upload_is_decoded_in_the_process_of_the_app(
    engine: Any, portrait: str, clips: dict[str, str], tmp_path: Path, monkeypatch: Any
) -> None:
    import av
    import cv2
    from PIL import Image

    def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("an upload was decoded here")

    for place, name in ((av, "open"), (Image, "open"), (cv2, "imread"), (cv2, "imdecode"), (cv2, "VideoCapture")):
        monkeypatch.setattr(place, name, forbidden)
    kept, _ = ui_photo.look_at(engine, portrait, WORDS)
    assert kept is not None
    film, _ = ui_video.watch_film(engine, clips["moods"], WORDS)
    assert film is not None
    assert ui_video.annotated(engine, film, WORDS, tmp_path).stat().st_size > 10_000
    micro = ui_micro.MicroEngine(engine)
    assert micro.clip(clips["micro"], WORDS).length_s > 0
    assert micro.pair(portrait, portrait, WORDS).length_s == 0
    shelf, page = ui_search.take_in(engine, [portrait, clips["moods"]], None)
    assert "was decoded here" not in page
    assert len(shelf.index) > 2
    shelf.close()
    frame = Path(portrait).read_bytes()
    assert engine.uploads.pixels(frame).shape == (512, 512, 3)


def test_video_tells_segments_and_facts_for_the_script(engine: Any, clips: dict[str, str], monkeypatch: Any) -> None:
    told: list[int] = []
    film, page = ui_video.watch_film(engine, clips["moods"], WORDS, hook=lambda _, done, total: told.append(done))
    assert told == sorted(told)
    assert told[-1] > 10
    facts = json.loads(unescape(re.search(r'data-film="([^"]*)"', page).group(1)))  # type: ignore[union-attr]
    assert facts["names"][0] == "a broad smile"
    track = facts["tracks"][0]
    assert len(track["start"]) == len(track["end"]) == len(track["p"])
    assert np.allclose(np.sum(track["p"], axis=1), 1, atol=0.01)
    for part in ('role="slider"', "expressions.csv", "expressions.json", "expressions.vtt", "sentences compared"):
        assert part in page
    monkeypatch.setattr(engine.pipeline, "encode", None)  # other words need no second look
    assert "mostly real joy" in ui_video.tell_film(engine, film, parse_labels("real joy, disgust at a smell"))


def test_the_example_clip_shows_a_change_that_is_read(engine: Any, clips: dict[str, str]) -> None:
    film, _ = ui_video.watch_film(engine, clips["moods"], load_label_set("ekman7"))
    assert film is not None
    segments = engine.tell_film(film, load_label_set("ekman7")).report.predictions
    labels = [one.label for one in segments if one.label]
    assert (labels[0], labels[-1]) == ("happiness", "happiness")
    (sad,) = [one for one in segments if one.label == "sadness"]
    assert 3.0 < sad.start_s < 4.0
    assert 4.8 < sad.end_s < 6.0


def test_video_is_annotated(engine: Any, clips: dict[str, str], tmp_path: Path) -> None:
    film, _ = ui_video.watch_film(engine, clips["moods"], WORDS)
    assert film is not None
    path = ui_video.annotated(engine, film, WORDS, tmp_path)
    assert probe_video(path).frame_count == probe_video(clips["moods"]).frame_count


def test_stop_ends_a_stream_at_the_next_chunk() -> None:
    stop = threading.Event()
    chunk = Frames(np.zeros((1, 4, 4, 3), np.uint8), np.zeros(1))
    stream = _until([chunk, chunk], stop)
    assert next(stream) is chunk
    stop.set()
    with pytest.raises(VlferError, match="Stopped"):
        next(stream)


def test_video_that_is_too_long_or_none(engine: Any, portrait: str, clips: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(VideoReadError, match="is an image"):
        ui_video.watch_film(engine, portrait, WORDS)
    strict = Engine(engine.pipeline, limits=Limits(video_s=2.0), pool=lambda: engine.uploads.pool)
    with pytest.raises(DataError, match="lasts"):
        ui_video.watch_film(strict, clips["moods"], WORDS)
    junk = tmp_path / "film.mp4"
    junk.write_bytes(b"\0" * 5000)
    with pytest.raises(VlferError, match="The upload"):
        ui_video.watch_film(engine, str(junk), WORDS)


def test_webcam_follows_smoothly(engine: Any, portrait: str) -> None:
    pixels = load_image(portrait).pixels[0]
    live, page = ui_webcam.see_frame(engine, pixels, WORDS, None, now_s=10.0)
    assert "a broad smile" in page
    live, page = ui_webcam.see_frame(engine, pixels, WORDS, live, now_s=10.2)
    assert live is not None
    assert live.fps == pytest.approx(5.0)
    assert "5.0" in page
    assert "ms" in page
    live, page = ui_webcam.see_frame(engine, np.zeros_like(pixels), WORDS, live, now_s=10.4)
    assert "No face in sight" in page


def test_smoothing_forgets_with_time_and_keeps_faces_apart() -> None:
    box = np.array([0, 0, 10, 10], np.float32)
    before = ui_webcam.Live((box,), np.array([[1.0, 0.0]], np.float32), 0.0)
    fresh = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)
    faces = [Face(box, 1.0), Face(box + 100, 1.0)]
    soon = ui_webcam.smooth(fresh, faces, before, now_s=0.05)
    late = ui_webcam.smooth(fresh, faces, before, now_s=1.5)
    assert soon[0, 0] > 0.9
    assert late[0, 0] < 0.1
    assert np.array_equal(soon[1], fresh[1])
    assert np.allclose(np.linalg.norm(soon, axis=1), 1)


def test_micro_expression_of_a_frown_and_in_other_words(engine: Any, clips: dict[str, str]) -> None:
    micro = ui_micro.MicroEngine(engine)
    motion = micro.clip(clips["micro"], load_label_set("micro3"))
    moments = motion.result.moments
    assert moments.times_s is not None
    assert 0.3 < moments.times_s[1] < 0.55
    assert "AU4" in [unit for unit, _ in motion.result.units]
    brows = parse_labels("frowning brows, raised brows")
    _, page = ui_micro.shown(micro.again(motion, brows), brows)
    for part in ("frowning brows", "Onset", "where it moved", "Experimental", "sentences compared", "2 labels given"):
        assert part in page


def test_two_equal_pictures_show_no_motion(engine: Any, portrait: str) -> None:
    micro = ui_micro.MicroEngine(engine)
    _, page = ui_micro.shown(micro.pair(portrait, portrait, WORDS), WORDS)
    assert "No clear answer." in page


def test_search_finds_moments_and_explains_files_that_are_none(
    engine: Any, portrait: str, clips: dict[str, str], tmp_path: Path
) -> None:
    junk = tmp_path / "notes <b>.jpg"
    junk.write_text("hello")
    shelf, page = ui_search.take_in(engine, [portrait, clips["moods"], str(junk)], None)
    assert "astronaut.jpg" in page
    assert "<b>" not in page
    assert "is not an image" in page
    found = ui_search.answer(shelf, "a broad smile")
    assert found.count('<li class="vl-card vl-hit"') >= 3
    film = next(hit for hit in shelf.hits if hit.source != "astronaut.jpg")
    assert film.end_s - film.start_s < 4  # while she smiles, not the whole clip
    for part in ("sentences compared", "an expression of a broad smile", "relative to the words given"):
        assert part in found
    assert "data:image/jpeg" in found
    with pytest.raises(PromptError):
        ui_search.answer(shelf, "  ")
    folder = Path(shelf._folder.name)
    assert folder.exists()
    shelf.close()
    assert not folder.exists()


def test_compare_offers_names_only_and_keeps_what_it_saw(engine: Any, portrait: str) -> None:
    backbones = ui_compare.Backbones(engine)
    assert backbones.names[0] == "bundled"
    assert backbones.engine("/etc/passwd") is engine
    seen, page = ui_compare.one_side(backbones, portrait, WORDS, "bundled", None)
    again, _ = ui_compare.one_side(backbones, portrait, load_label_set("ekman7"), "bundled", seen)
    assert again is seen
    assert "bundled, 3 labels" in page
