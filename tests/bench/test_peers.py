"""Peers in environments of their own; nothing is downloaded here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vlfer.bench.peers import environment, runner
from vlfer.bench.peers.environment import PEERS, find_peers, on_classes, prepare, run_peer
from vlfer.errors import ConfigError, DataError, EnvironmentProblem


def test_every_peer_has_a_runner():
    assert set(PEERS) == set(runner.BUILDERS)
    assert [p.name for p in find_peers(["fer", "fer"])] == ["fer"]
    assert len(find_peers(["all"])) == len(PEERS)
    with pytest.raises(ConfigError, match="Did you mean 'facemood'"):
        find_peers(["facemod"])


def test_classes_are_mapped_by_name():
    probability = np.array([[0.2, 0.3, 0.5]], np.float32)
    found = on_classes(probability, ("fear", "anger", "neutral"), ("neutral", "fear", "contempt"))
    assert found == pytest.approx(np.array([[0.5 / 0.7, 0.2 / 0.7, 0]]))
    with pytest.raises(DataError, match="None of awe"):
        on_classes(probability, ("fear", "anger", "neutral"), ("awe",))


def test_an_index_out_of_reach_is_told(tmp_path, monkeypatch):
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho 'error: dns error' >&2\nexit 2\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(EnvironmentProblem, match=r"fer cannot be installed: error: dns error.* out of reach"):
        prepare(PEERS["fer"], folder=tmp_path / "peers")
    monkeypatch.setattr(environment.shutil, "which", lambda _: None)
    with pytest.raises(EnvironmentProblem, match="There is no uv"):
        prepare(PEERS["fer"], folder=tmp_path / "peers")


_FAKE_PEER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("runner", {runner!r})
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)
import numpy as np
def build(threads):
    def predict(images):
        return np.array([[image.mean() / 255, image.shape[1], threads] for image in images], np.float32)
    return predict, ("a", "b", "c"), {{"weights_bytes": 7, "parameters": 3}}
runner.BUILDERS["fer"] = build
runner._ms_per_face = lambda predict, images, size: float(predict(images)[0, 2] * size)
runner.main()
"""


@pytest.fixture
def fake_peer(tmp_path, monkeypatch):
    """Run the real runner with a network that answers with what it was given."""
    script = tmp_path / "fake.py"
    script.write_text(_FAKE_PEER.format(runner=str(Path(runner.__file__))))
    monkeypatch.setattr(environment, "_RUNNER", script)
    monkeypatch.setattr(environment, "prepare", lambda peer, **_: Path(sys.executable))
    return PEERS["fer"]


def test_crops_of_any_size_reach_the_peer_in_order(fake_peer):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((4, 6, 3), (5, 3, 3), (2, 2, 3))]
    probability, classes, facts = run_peer(fake_peer, images)
    assert probability[:, 0] == pytest.approx([image.mean() / 255 for image in images], rel=1e-5)
    assert probability[:, 1].tolist() == [6, 3, 2]
    assert classes == ("a", "b", "c")
    assert facts["weights_bytes"] == 7
    assert "ms_per_face" not in facts


def test_speed_is_asked_with_threads(fake_peer):
    _, _, facts = run_peer(fake_peer, [np.zeros((4, 4, 3), np.uint8)], threads=2)
    assert facts["ms_per_face"] == {"1": 2.0, "32": 64.0}


def test_a_peer_that_fails_is_told(fake_peer, monkeypatch, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("raise ImportError('no tflite')")
    monkeypatch.setattr(environment, "_RUNNER", broken)
    with pytest.raises(EnvironmentProblem, match="ImportError: no tflite"):
        run_peer(fake_peer, [np.zeros((4, 4, 3), np.uint8)])


def test_runner_needs_numpy_alone():
    code = f"import runpy, sys, json; runpy.run_path({runner.__file__!r}); print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"vlfer", "torch", "cv2", "PIL"} & set(json.loads(done.stdout))
