"""The index on disk: what is put in is found, removed, joined, shared, and survives a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vlfer.errors import ConfigError, DataError, ShapeError, SpaceError
from vlfer.search import Moment, SearchIndex

SPACE = "made/0000"


def made_vectors(count: int, *, dimension: int = 24, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def moments_of(vectors: np.ndarray, *, apart_s: float = 1.0, track_id: int = 0) -> list[Moment]:
    return [
        Moment(i * apart_s, i * apart_s + 0.5, track_id, vector, f"jpeg {i}".encode())
        for i, vector in enumerate(vectors)
    ]


def open_index(folder: Path, **settings: int) -> SearchIndex:
    return SearchIndex.open(folder / "index", encoder_space=SPACE, **settings)


@pytest.mark.parametrize("flat_up_to", [10_000, 50], ids=["flat", "ivf"])
def test_every_vector_finds_itself(tmp_path: Path, flat_up_to: int) -> None:
    vectors = made_vectors(300)
    with open_index(tmp_path, flat_up_to=flat_up_to) as index:
        for i in range(10):
            index.add_source(f"{i}.mp4", moments_of(vectors[i * 30 : (i + 1) * 30]))
        assert len(index) == 300
        assert index.kind == ("flat" if flat_up_to > 300 else "ivf")
        for i in (0, 29, 30, 299):
            (hit,) = index.query(vectors[i], 1)
            assert (hit.source, hit.start_s) == (f"{i // 30}.mp4", i % 30)
            assert hit.similarity == pytest.approx(1.0, abs=1e-6)
            assert hit.thumbnail == f"jpeg {i % 30}".encode()


def test_flat_order_is_that_of_all_inner_products(tmp_path: Path) -> None:
    vectors, asked = made_vectors(200), made_vectors(1, seed=1)[0]
    with open_index(tmp_path) as index:
        index.add_source("a.mp4", moments_of(vectors))
        found = [hit.start_s for hit in index.query(asked, 20)]
    assert found == np.argsort(-(vectors @ asked))[:20].tolist()


def test_touching_stretches_of_one_face_are_one_hit(tmp_path: Path) -> None:
    vector = made_vectors(1)[0]
    with open_index(tmp_path) as index:
        together = moments_of(np.stack([vector] * 3), apart_s=0.5)
        index.add_source("a.mp4", [*together, Moment(9.0, 9.5, 0, vector), Moment(0.5, 1.0, 1, vector)])
        spans = {(hit.track_id, hit.start_s, hit.end_s) for hit in index.query(vector, 10)}
    assert spans == {(0, 0.0, 1.5), (0, 9.0, 9.5), (1, 0.5, 1.0)}


def test_a_stretch_that_answers_worse_is_a_moment_of_its_own(tmp_path: Path) -> None:
    smile, frown = made_vectors(2)
    with open_index(tmp_path) as index:
        index.add_source("a.mp4", moments_of(np.stack([smile, smile, frown, frown, smile]), apart_s=0.5))
        spans = [(hit.start_s, hit.end_s) for hit in index.query(smile, 10)]
    assert sorted(spans[:2]) == [(0.0, 1.0), (2.0, 2.5)]
    assert spans[2] == (1.0, 2.0)


@pytest.mark.parametrize("flat_up_to", [10_000, 50], ids=["flat", "ivf"])
def test_removed_source_is_gone_also_after_reopening(tmp_path: Path, flat_up_to: int) -> None:
    vectors = made_vectors(120)
    with open_index(tmp_path, flat_up_to=flat_up_to) as index:
        index.add_source("a.mp4", moments_of(vectors[:60]))
        index.add_source("b.mp4", moments_of(vectors[60:]))
        index.save()
        assert index.remove("a.mp4") == 60
        assert {hit.source for hit in index.query(vectors[0], 100)} == {"b.mp4"}
    with open_index(tmp_path, flat_up_to=flat_up_to) as index:
        assert len(index) == 60
        assert list(index.sources()) == ["b.mp4"]
        assert {hit.source for hit in index.query(vectors[0], 100)} == {"b.mp4"}


def test_adding_a_source_again_replaces_it(tmp_path: Path) -> None:
    vectors = made_vectors(6)
    with open_index(tmp_path) as index:
        index.add_source("a.mp4", moments_of(vectors[:4]), stamp="1")
        index.add_source("a.mp4", moments_of(vectors[4:]), stamp="2", note="shorter")
        assert len(index) == 2
        assert index.sources() == {"a.mp4": "2"}
        assert index.notes() == {"a.mp4": "shorter"}
        assert index.query(vectors[0], 1)[0].similarity < 0.99


@pytest.mark.parametrize("damage", ["missing", "cut", "old", "foreign"])
def test_faiss_file_is_only_a_cache(tmp_path: Path, damage: str) -> None:
    vectors = made_vectors(40)
    file = tmp_path / "index" / "vectors.faiss"
    with open_index(tmp_path) as index:
        index.add_source("a.mp4", moments_of(vectors[:20]))
    old = file.read_bytes()
    with open_index(tmp_path) as index:
        index.add_source("b.mp4", moments_of(vectors[20:]))
        index.remove("a.mp4")
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"cut": old[: len(old) // 2], "old": old, "foreign": b"no index at all"}[damage])
    with open_index(tmp_path) as index:
        assert len(index) == 20
        assert index.query(vectors[25], 1)[0].start_s == 5.0
        assert index.query(vectors[0], 1)[0].similarity < 0.99


def test_another_process_is_seen_at_once(tmp_path: Path) -> None:
    vectors = made_vectors(4)
    with open_index(tmp_path) as reader, open_index(tmp_path) as writer:
        assert reader.query(vectors[0]) == []
        writer.add_source("a.mp4", moments_of(vectors))
        assert reader.query(vectors[2], 1)[0].start_s == 2.0
        writer.remove("a.mp4")
        assert reader.query(vectors[2], 1) == []


_WRITER = """
import sys, numpy as np
from vlfer.search import Moment, SearchIndex
rng = np.random.default_rng(0)
index = SearchIndex.open(sys.argv[1], encoder_space="made/0000")
for i in range(100000):
    v = rng.normal(size=(7, 24)).astype(np.float32); v /= np.linalg.norm(v, axis=1, keepdims=True)
    index.add_source(f"{i}.mp4", [Moment(j, j + .5, 0, v[j], bytes(2000)) for j in range(7)])
    if i % 3 == 2: index.remove(f"{i - 1}.mp4")
    if i % 5 == 4: index.save()
    print(i, flush=True)
"""


def test_kill_at_any_time_leaves_whole_sources(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    for round_, wait_s in enumerate((0.0, 0.013, 0.03)):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER.replace("{i}", f"{{i}}-{round_}").replace("{i - 1}", f"{{i - 1}}-{round_}"),
             str(folder)], stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= 6:
                break
        time.sleep(wait_s)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        with SearchIndex.open(folder, encoder_space=SPACE) as index:
            assert len(index) == 7 * len(index.sources()) >= 7 * 5
            hits = index.query(made_vectors(1)[0], 1000)
            assert {hit.source for hit in hits} <= set(index.sources())


def test_index_of_another_model_is_refused(tmp_path: Path) -> None:
    open_index(tmp_path).close()
    with pytest.raises(SpaceError, match=r"made/0000.*other/1111"):
        SearchIndex.open(tmp_path / "index", encoder_space="other/1111")


def test_what_is_no_index_is_told(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "moments.sqlite").write_bytes(b"these are the voyages" * 100)
    with pytest.raises(DataError, match="cannot be opened"):
        open_index(tmp_path)


def test_bad_arguments_are_told(tmp_path: Path) -> None:
    vectors = made_vectors(2)
    with open_index(tmp_path) as index:
        index.add_source("clip.mp4", moments_of(vectors))
        with pytest.raises(DataError, match=r"Did you mean 'clip\.mp4'"):
            index.remove("clipp.mp4")
        with pytest.raises(ConfigError, match="0 hits"):
            index.query(vectors[0], 0)
        with pytest.raises(ShapeError, match="finite"):
            index.query(vectors[0] * np.float32("nan"))
        with pytest.raises(ShapeError, match="Expected"):
            index.add_source("x", [Moment(0, 1, 0, vectors[0].astype(np.float64))])
        with pytest.raises(ShapeError, match="index have 24"):
            index.add_source("x", moments_of(made_vectors(1, dimension=8)))
        with pytest.raises(ShapeError, match="numbers"):
            index.query(made_vectors(1, dimension=8)[0])
