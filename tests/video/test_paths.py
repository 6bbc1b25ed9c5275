from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from vlfer.errors import MediaReadError
from vlfer.video.read import expand_paths, media_kind


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "sub/c.mp4", "sub/d.webm", "notes.txt", ".hidden.jpg", "sub/.trash.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def test_folders_give_their_media_sorted(folder: Path) -> None:
    names = [str(path.relative_to(folder)) for path in expand_paths([folder])]
    assert names == ["a.PNG", "b.jpg", "sub/c.mp4", "sub/d.webm"]


def test_files_patterns_and_repetitions(folder: Path) -> None:
    found = expand_paths([folder / "notes.txt", str(folder / "*.jpg"), folder / "b.jpg", str(folder / "**" / "*.mp4")])
    assert [path.name for path in found] == ["notes.txt", "b.jpg", "c.mp4"]
    assert [path.name for path in expand_paths([str(folder / "su*")])] == ["c.mp4", "d.webm"]


def test_what_is_missing_stays(folder: Path) -> None:
    (folder / "bare").mkdir()
    missing = [folder / "no.jpg", folder / "*.tiff", folder / "bare"]
    assert expand_paths(missing) == missing
    (folder / "face[1].jpg").touch()
    assert expand_paths([folder / "face[1].jpg"]) == [folder / "face[1].jpg"]


def test_content_decides_over_suffix(clip: Path, tmp_path: Path) -> None:
    shutil.copy(clip, tmp_path / "video.jpg")
    assert media_kind(tmp_path / "video.jpg") == "video"
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF"):
        Image.new("RGB", (16, 16)).save(tmp_path / "image.mp4", kind)
        assert media_kind(tmp_path / "image.mp4") == "image", kind


def test_gifs_are_videos_if_they_move(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "still.gif")
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert media_kind(tmp_path / "still.gif") == "image"
    assert media_kind(tmp_path / "moving.gif") == "video"


def test_suffix_decides_where_content_is_unknown(tmp_path: Path) -> None:
    for name, kind in (("a.mp4", "video"), ("a.MOV", "video"), ("a.jpg", "image")):
        (tmp_path / name).write_text("not what it says")
        assert media_kind(tmp_path / name) == kind
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(MediaReadError, match="neither an image nor a video"):
        media_kind(tmp_path / "a.txt")
    with pytest.raises(MediaReadError, match="does not exist"):
        media_kind(tmp_path / "b.txt")
    with pytest.raises(MediaReadError, match="holds no image or video"):
        media_kind(tmp_path)
