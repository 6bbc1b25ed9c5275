"""`vlfer index`: build, query, list, remove, build again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SAMPLE = Path(__file__).parents[2] / "vlfer" / "samples" / "astronaut.jpg"


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    Image.open(SAMPLE).save(folder / "portrait.png")
    Image.fromarray(np.full((480, 640, 3), 90, np.uint8)).save(folder / "wall.png")
    return folder


@pytest.mark.slow
def test_build_query_and_remove(run: Any, album: Path, tmp_path: Path) -> None:
    index = ["--index", str(tmp_path / "index")]
    built = run("index", "build", str(album), *index)
    assert built.exit_code == 0, built.stderr
    assert "1 moments of 2 files" in built.stderr
    assert "2 unchanged" in run("index", "build", str(album), *index).stderr

    found = run("index", "query", "a happy face", *index, "--format", "json", "--thumbnails", str(tmp_path / "out"))
    (hit,) = json.loads(found.stdout)
    assert hit["source"] == str(album / "portrait.png")
    assert Image.open(hit["thumbnail"]).size[0] > 60

    assert run("index", "list", *index).stdout.splitlines() == [str(album / "portrait.png"), str(album / "wall.png")]
    assert run("index", "remove", str(album / "portrait.png"), *index).exit_code == 0
    assert json.loads(run("index", "query", "a happy face", *index, "--format", "json").stdout) == []


def test_query_without_an_index_says_how_to_build_one(run: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("vlfer.cli.index._pipeline", lambda *args, **kwargs: None)
    result = run("index", "query", "joy", "--index", str(tmp_path / "none"))
    assert result.exit_code == 2
    assert "vlfer index build" in result.stderr
