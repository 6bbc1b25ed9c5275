"""Batching, jobs and words on their own."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlfer.serve.batching import MicroBatcher
from vlfer.serve.jobs import Job, JobStore
from vlfer.serve.problems import ServiceProblem
from vlfer.serve.words import RecentBank


def crops(value: int, count: int = 1) -> np.ndarray:
    return np.full((count, 2, 2, 3), value, np.uint8)


def test_what_waits_is_one_batch_and_everybody_gets_his_own() -> None:
    go, sizes = threading.Event(), []

    def encode(pixels: np.ndarray) -> np.ndarray:
        go.wait(5)
        return pixels[:, 0, 0, :].astype(np.float32)

    batcher = MicroBatcher(encode, max_batch=8, on_batch=sizes.append, coming=lambda: False)
    answers = [batcher.submit(crops(i, 1 + i % 2)) for i in range(12)]
    go.set()
    for i, answer in enumerate(answers):
        assert answer.result(5).tolist() == [[i] * 3] * (1 + i % 2)
    batcher.close()
    assert sum(sizes) == 18
    assert max(sizes) == 8
    assert len(sizes) < 12


def test_a_small_batch_is_held_back_only_while_more_are_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    more = threading.Event()

    def encode(pixels: np.ndarray) -> np.ndarray:
        return pixels[:, 0, 0, :].astype(np.float32)

    batcher = MicroBatcher(encode, max_batch=8, on_batch=sizes.append, coming=more.is_set)
    for expected, pause_s, hold_s in (([1, 1], 0.2, 5.0), ([2], 0.1, 1.0), ([1, 1], 0.3, 0.05)):
        monkeypatch.setattr("vlfer.serve.batching._HOLD_S", hold_s)
        first = batcher.submit(crops(1))
        time.sleep(pause_s)
        second = batcher.submit(crops(2))
        assert (first.result(5)[0, 0], second.result(5)[0, 0]) == (1, 2)
        assert sizes == expected
        sizes.clear()
        more.set()  # from here on images wait for a decoder
    batcher.close()


def test_one_that_fails_does_not_spoil_the_others() -> None:
    go = threading.Event()

    def encode(pixels: np.ndarray) -> np.ndarray:
        go.wait(5)
        if (pixels == 13).any():
            raise ValueError("unlucky")
        return pixels[:, 0, 0, :].astype(np.float32)

    batcher = MicroBatcher(encode, max_batch=8, on_batch=lambda count: None, coming=lambda: False)
    answers = {value: batcher.submit(crops(value)) for value in (1, 12, 13, 14)}
    go.set()
    with pytest.raises(ValueError, match="unlucky"):
        answers[13].result(5)
    assert [answers[value].result(5)[0, 0] for value in (1, 12, 14)] == [1, 12, 14]
    batcher.close()


def wait_for(job: Job) -> Job:
    deadline = time.monotonic() + 5
    while not job.is_over:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return job


def test_jobs_end_expire_and_belong_to_somebody(tmp_path: Path) -> None:
    store = JobStore(ttl_s=0.2)
    file = tmp_path / "upload"
    file.write_bytes(b"x")
    job = wait_for(store.submit(file, lambda path, tell: {"size": path.stat().st_size}, owner="me"))
    assert (job.state, job.result) == ("done", {"size": 1})
    assert not file.exists()
    assert store.find(job.id, owner="me") is job
    with pytest.raises(ServiceProblem, match="no such video"):
        store.find(job.id, owner="you")
    time.sleep(0.25)
    with pytest.raises(ServiceProblem, match="no such video"):
        store.find(job.id, owner="me")
    store.close()


def test_jobs_are_cancelled_waiting_and_running(tmp_path: Path) -> None:
    store, started = JobStore(most=2), threading.Event()

    def work(path: Path, tell: Any) -> dict[str, Any]:
        started.set()
        for i in range(10_000):
            tell(i, 10_000)
            time.sleep(0.001)
        return {}

    files = [tmp_path / str(i) for i in range(3)]
    for file in files:
        file.write_bytes(b"x")
    running, waiting = (store.submit(file, work, owner="me") for file in files[:2])
    assert started.wait(5)
    with pytest.raises(ServiceProblem, match="2 videos are waiting"):
        store.submit(files[2], work, owner="me")
    for job in (waiting, running):
        store.cancel(job.id, owner="me")
    assert {wait_for(job).state for job in (running, waiting)} == {"cancelled"}
    store.close()
    assert [file.exists() for file in files] == [False, False, True]


def test_recent_bank_forgets_the_oldest() -> None:
    class Counting:
        space = "made/0"

        def __init__(self) -> None:
            self.asked: list[str] = []

        def encode_texts(self, sentences: Any) -> Any:
            from vlfer.types import Embedding

            self.asked += sentences
            vectors = np.array([[1.0, 0.0] if len(s) % 2 else [0.0, 1.0] for s in sentences], np.float32)
            return Embedding(vectors, self.space)

    encoder = Counting()
    bank = RecentBank(encoder, most=3)
    assert bank.encode(["a", "bb", "a"]).vectors.tolist() == [[1, 0], [0, 1], [1, 0]]
    bank.encode(["a", "ccc", "dddd"])
    bank.encode(["a"])
    assert encoder.asked == ["a", "bb", "ccc", "dddd"]
    bank.encode(["bb"])
    assert encoder.asked[-1] == "bb"
