"""The store: interrupted, shared, damaged, full, fast."""

import errno
import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from vlfer.errors import EnvironmentProblem
from vlfer.evaluation import embed
from vlfer.evaluation.embed import Clip, EmbeddingStore, group_id
from vlfer.evaluation.encode import encode_rows
from vlfer.evaluation.manifest import Row
from vlfer.evaluation.media import Recipe
from vlfer.evaluation.run import embed_words, score_clips
from vlfer.types import Label, LabelSet

RECIPE = Recipe(size=16, faces="whole")


def unit(n, d=4, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def pictures(fake, folder, n):
    return [Row(str(fake.picture(folder / f"{i}.png", i % 7, mark=i)), fake.DFEW_CLASSES[i % 7]) for i in range(n)]


def test_what_is_added_comes_back(tmp_path):
    store = EmbeddingStore(tmp_path)
    clips = [
        ("a", unit(3), "ok", "note"),
        ("b", np.zeros((0, 0), np.float32), "no_face", "none"),
        ("c", unit(2), "ok", ""),
    ]
    store.add("g", clips)
    found = EmbeddingStore(tmp_path).find("g", ["a", "b", "c", "d"])
    assert set(found) == {"a", "b", "c"}
    assert np.array_equal(store.vectors(found["a"]), clips[0][1])
    assert np.array_equal(store.vectors(found["c"]), clips[2][1])
    assert isinstance(store.vectors(found["a"]), np.memmap)
    assert found["b"] == Clip("", 3, 0, "no_face", "none")
    assert store.find("other", ["a"]) == {}


def test_an_interrupted_run_keeps_what_it_encoded(fake, make_encoder, tmp_path):
    rows = pictures(fake, tmp_path / "m", 40)

    class Interrupting(make_encoder):
        def encode_images(self, pixels, *, batch_size=32):
            if self.faces_seen >= 16:
                raise KeyboardInterrupt
            return super().encode_images(pixels, batch_size=batch_size)

    store = EmbeddingStore(tmp_path / "c")
    first = Interrupting(fake.DFEW_CLASSES)
    with pytest.raises(KeyboardInterrupt):
        encode_rows(rows, encoder=first, recipe=RECIPE, store=store, batch_size=4)
    second = make_encoder(fake.DFEW_CLASSES)
    result = encode_rows(rows, encoder=second, recipe=RECIPE, store=store, batch_size=4)
    assert first.faces_seen == 16
    assert second.faces_seen == 24
    assert result.from_cache == 16


def test_killed_between_shard_and_index_leaves_an_intact_store(tmp_path):
    script = textwrap.dedent("""
        import os, sys
        import numpy as np
        from vlfer.evaluation.embed import EmbeddingStore
        store = EmbeddingStore(sys.argv[1])
        ones = np.eye(4, dtype=np.float32)
        store.add("g", [("a", ones, "ok", "")])
        store._forget_broken = lambda *a: os._exit(9)
        store.add("g", [("b", ones, "ok", "")])
    """)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == 9
    store = EmbeddingStore(tmp_path)
    assert set(store.find("g", ["a", "b"])) == {"a"}
    store.add("g", [("b", unit(1), "ok", "")])
    assert set(store.find("g", ["a", "b"])) == {"a", "b"}


def test_two_runs_share_a_store(fake, make_encoder, tmp_path):
    rows = pictures(fake, tmp_path / "m", 60)
    results, encoders = {}, [make_encoder(fake.DFEW_CLASSES) for _ in range(2)]

    def work(i):
        store = EmbeddingStore(tmp_path / "c")
        results[i] = encode_rows(rows, encoder=encoders[i], recipe=RECIPE, store=store, batch_size=2)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = EmbeddingStore(tmp_path / "c")
    for result in results.values():
        assert all(isinstance(place, Clip) for place in result.places)
        expected = encoders[0].encode_images(np.full((1, 16, 16, 3), fake.colour(1), np.uint8)).vectors[0]
        assert store.vectors(result.places[1])[0] == pytest.approx(expected, abs=0.02)


def test_a_damaged_shard_is_made_anew(fake, make_encoder, tmp_path):
    rows = pictures(fake, tmp_path / "m", 5)
    encoder = make_encoder(fake.DFEW_CLASSES)
    encode_rows(rows, encoder=encoder, recipe=RECIPE, store=EmbeddingStore(tmp_path / "c"))
    (shard,) = (tmp_path / "c" / "shards").glob("*.npy")
    shard.write_bytes(shard.read_bytes()[:100])
    store = EmbeddingStore(tmp_path / "c")
    result = encode_rows(rows, encoder=encoder, recipe=RECIPE, store=store)
    assert encoder.faces_seen == 10
    assert [store.vectors(place).shape for place in result.places] == [(1, 4)] * 5
    assert encode_rows(rows, encoder=encoder, recipe=RECIPE, store=EmbeddingStore(tmp_path / "c")).from_cache == 5


def test_full_disk_is_told_and_the_store_stays_whole(tmp_path, monkeypatch):
    store = EmbeddingStore(tmp_path)
    store.add("g", [("a", unit(2), "ok", "")])

    def full(file, array):
        file.write(b"part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(embed.np, "save", full)
    with pytest.raises(EnvironmentProblem, match="disk is full") as error:
        store.add("g", [("b", unit(2), "ok", "")])
    assert "--cache" in str(error.value)
    assert set(store.find("g", ["a", "b"])) == {"a"}
    assert not list((tmp_path / "shards").glob("*.partial"))


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "c").write_text("x")
    with pytest.raises(EnvironmentProblem, match="cannot be used"):
        EmbeddingStore(tmp_path / "c")


def test_same_content_is_encoded_once(fake, make_encoder, tmp_path):
    one = fake.picture(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_bytes(one.read_bytes())
    encoder = make_encoder(fake.DFEW_CLASSES)
    rows = [Row(str(one), "x", fold="1"), Row(str(tmp_path / "b.png"), "x"), Row(str(one), "x", fold="2")]
    result = encode_rows(rows, encoder=encoder, recipe=RECIPE, store=EmbeddingStore(tmp_path / "c"))
    assert encoder.faces_seen == 1
    assert len(set(result.places)) == 1


def test_contents_are_hashed_once(fake, tmp_path, monkeypatch):
    rows = pictures(fake, tmp_path / "m", 3)
    store = EmbeddingStore(tmp_path / "c")
    first = store.content_ids(rows)
    monkeypatch.setattr(embed, "_READ_BYTES", "no file is read again")
    assert store.content_ids(rows) == first


@pytest.mark.slow
def test_ten_thousand_clips_are_scored_again_in_seconds(make_encoder, tmp_path):
    n, frames, dimension = 10_000, 16, 512
    store = EmbeddingStore(tmp_path)
    group = group_id("s", RECIPE)
    for start in range(0, n, 500):
        block = unit(500 * frames, dimension, seed=start).reshape(500, frames, dimension)
        store.add(group, [(str(start + i), clip, "ok", "") for i, clip in enumerate(block)])
    labels = LabelSet(tuple(Label(f"word {i}") for i in range(11)))

    class Bank:
        def encode(self, sentences):
            from vlfer.types import Embedding

            return Embedding(unit(len(sentences), dimension), "s")

    words = embed_words(
        labels, bank=Bank(), ensemble="name", sentences=[[f"{c} {j}" for j in range(20)] for c in range(11)]
    )
    fresh = EmbeddingStore(tmp_path)
    for pooling in ("embeddings", "probabilities"):
        began = time.process_time()  # CPU time of all threads: a busy machine is no fault of the program
        found = fresh.find(group, [str(i) for i in range(n)])
        places = [found[str(i)] for i in range(n)]
        probability = score_clips(
            places,
            store=fresh,
            space="s",
            labels=labels,
            words=words,
            temperature=0.1,
            average_probabilities=pooling == "probabilities",
        )
        took = time.process_time() - began
        assert probability.sum(axis=1) == pytest.approx(np.ones(n), abs=1e-4)
        assert took < 5.0, f"{pooling}: {took:.1f} s"


def test_more_shards_than_may_be_open_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "_MOST_OPEN_SHARDS", 3)
    store = EmbeddingStore(tmp_path)
    for i in range(10):
        store.add("g", [(str(i), unit(2, seed=i), "ok", "")])
    found = store.find("g", map(str, range(10)))
    assert len(store._shards) == 3
    for i in range(10):
        assert np.array_equal(store.vectors(found[str(i)]), unit(2, seed=i))


def test_a_disk_that_takes_no_more_is_told_as_full(tmp_path):
    resource = pytest.importorskip("resource")
    store = EmbeddingStore(tmp_path / "cache")
    unit = np.eye(8, dtype=np.float32)
    store.add("g", [("small", unit, "ok", "")])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))  # writes beyond it fail as on a full disk
    try:
        with pytest.raises(EnvironmentProblem, match="disk is full"):
            store.add("g", [("large", np.tile(unit, (2000, 1)), "ok", "")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "cache" / "shards").glob("*.partial"))
    found = EmbeddingStore(tmp_path / "cache").find("g", ["small", "large"])
    assert list(found) == ["small"]
    assert np.array_equal(store.vectors(found["small"]), unit)
