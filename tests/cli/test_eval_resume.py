"""Runs of `vlfer eval` as processes: killed on the way, two at once on one cache, a full disk."""

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from vlfer.evaluation import embed

N = 300
# Stores after every block and is slow enough to be hit in the middle; everything else is the command as it is.
SLOW = """
import sys, time
from vlfer.evaluation import encode
encode._STORE_EVERY_S = 0.0
block = encode.encode_block
def slow(*given, **named):
    time.sleep({seconds})
    return block(*given, **named)
encode.encode_block = slow
from vlfer.cli.main import app
app(sys.argv[1:])
"""


@pytest.fixture
def command(tmp_path, tiny_backbone_name):
    """Arguments of an evaluation of 300 small pictures."""
    folder = tmp_path / "media"
    folder.mkdir()
    lines = ["path,label"]
    for i in range(N):
        pixels = np.random.default_rng(i).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{('anger', 'fear', 'happiness')[i % 3]}")
    (folder / "m.csv").write_text("\n".join(lines) + "\n")

    def arguments(out, cache="cache"):
        return [
            "eval", "manifest", "--manifest", str(folder / "m.csv"), "--faces", "whole", "--backbone",
            tiny_backbone_name, "--device", "cpu", "--batch-size", "4", "--cache", str(tmp_path / cache),
            "--bootstrap", "100", "--out", str(tmp_path / out),
        ]  # fmt: skip

    return arguments


def start(arguments, *, seconds=0.0):
    return subprocess.Popen(
        [sys.executable, "-c", SLOW.format(seconds=seconds), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def stored(cache):
    if not (cache / "index.sqlite").exists():
        return 0
    index = sqlite3.connect(cache / "index.sqlite")
    try:
        return index.execute("SELECT count(*) FROM clips").fetchone()[0]
    except sqlite3.OperationalError:  # the table is about to be made
        return 0
    finally:
        index.close()


def read(folder):
    report = json.loads((folder / "report.json").read_text())
    return report, (folder / "predictions.csv").read_bytes(), (folder / "confusion.csv").read_bytes()


@pytest.mark.slow
def test_kill_9_and_a_second_run_gives_the_report_of_an_undisturbed_one(command, run, tmp_path):
    process = start(command("killed"), seconds=0.3)
    until = time.monotonic() + 120
    while stored(tmp_path / "cache") < 32 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stderr.close()
    before = stored(tmp_path / "cache")
    assert 32 <= before < N
    assert not list((tmp_path / "killed").iterdir())
    assert run(*command("again")).exit_code == 0
    assert run(*command("undisturbed", cache="other")).exit_code == 0
    again, undisturbed = read(tmp_path / "again"), read(tmp_path / "undisturbed")
    assert again[1:] == undisturbed[1:]
    assert again[0]["embeddings"] == {"from_cache": before, "encoded": N - before}
    for name in ("war", "uar", "uf1", "auc", "ece", "n", "failed", "confusion", "interval", "manifest_sha256"):
        assert again[0][name] == undisturbed[0][name], name


@pytest.mark.slow
def test_two_runs_at_once_share_a_cache(command, run, tmp_path):
    both = [start(command(name), seconds=0.05) for name in ("one", "two")]
    for process in both:
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
    assert stored(tmp_path / "cache") == N
    assert read(tmp_path / "one")[1:] == read(tmp_path / "two")[1:]
    assert run(*command("three")).exit_code == 0
    assert read(tmp_path / "three")[0]["embeddings"] == {"from_cache": N, "encoded": 0}


def test_full_disk_is_told_and_what_was_stored_serves_the_next_run(command, run, tmp_path, monkeypatch):
    from vlfer.evaluation import encode

    save, written = np.save, []

    def fill(file, array):
        if len(written) >= 3:
            file.write(b"part")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(len(array))
        save(file, array)

    monkeypatch.setattr(encode, "_STORE_EVERY_S", 0.0)
    monkeypatch.setattr(embed.np, "save", fill)
    result = run(*command("full"))
    assert result.exit_code == 3
    assert "disk is full" in result.stderr
    assert "--cache" in result.stderr
    assert not list((tmp_path / "full").iterdir())
    monkeypatch.setattr(embed.np, "save", save)
    assert run(*command("later")).exit_code == 0
    assert read(tmp_path / "later")[0]["embeddings"] == {"from_cache": sum(written), "encoded": N - sum(written)}


def test_full_disk_under_the_index(command, run, monkeypatch):
    connect = embed.EmbeddingStore._connect

    class Full:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def __enter__(self):
            return self.inner.__enter__() and self

        def __exit__(self, *given):
            return self.inner.__exit__(*given)

        def executemany(self, statement, values):
            if "INTO clips" in statement:
                raise sqlite3.OperationalError("database or disk is full")
            return self.inner.executemany(statement, values)

    monkeypatch.setattr(embed.EmbeddingStore, "_connect", lambda self: Full(connect(self)))
    result = run(*command("full"))
    assert result.exit_code == 3
    assert "disk is full" in result.stderr
