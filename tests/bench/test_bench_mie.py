"""The bench of micro-expressions on small sizes: what it measures is what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from vlfer.bench.mie import bench_spotting, made_pair, resting_grey, write_fast_video
from vlfer.bench.mie_few import FewLabels, bench_few_labels
from vlfer.bench.mie_made import CLASSES, another_look, resting_faces
from vlfer.cli.main import app
from vlfer.errors import NoFaceError
from vlfer.faces.detect import build_detector
from vlfer.micro.flow import build_flow
from vlfer.models.miacnet import MiacSettings
from vlfer.training.mie_miacnet import MiacLearner
from vlfer.training.mie_pretrain import PretrainSettings
from vlfer.video.read import probe_video

run = CliRunner().invoke


@pytest.fixture(scope="module")
def detector():
    return build_detector()


def test_the_made_pair_moves_as_far_as_was_asked(detector) -> None:
    onset, apex = made_pair(detector=detector, units=("AU1", "AU2"), amplitude=0.01)
    assert onset.shape == apex.shape == (512, 512, 3)
    grey = [np.ascontiguousarray(image.mean(axis=2).astype(np.uint8)) for image in (onset, apex)]
    flow = build_flow("farneback")(*grey)
    peak = float(np.hypot(*flow.transpose(2, 0, 1)).max())
    # The reference is 1.06 face widths of some 105 px here, so the peak is about a pixel.
    assert 0.5 < peak < 2.5


def test_the_fast_video_is_what_it_says(detector, tmp_path) -> None:
    assert write_fast_video(tmp_path / "fast.mp4", detector=detector, seconds=0.5) == 100
    info = probe_video(tmp_path / "fast.mp4")
    assert (info.width, info.height, round(info.fps)) == (640, 480, 200)


def test_spotting_is_scored_over_all_videos(detector) -> None:
    found = bench_spotting(resting_grey(detector=detector), videos=1, duration_s=12.0)
    assert [one.name for one in found] == ["spotting F1, 1 made videos", "spotting F1, macro", "spotting F1, micro"]
    assert all(0 <= one.value <= 1 for one in found)
    assert "hits" in found[0].note


def test_looks_are_other_faces_of_the_same_size(detector) -> None:
    [face] = resting_faces([], side=32, detector=detector)
    rng = np.random.default_rng(0)
    one, two = another_look(face, rng=rng), another_look(face, rng=rng)
    assert one.shape == two.shape == (32, 32, 3)
    assert np.abs(one.astype(int) - two).mean() > 5


def test_pictures_without_a_face_are_refused(detector, tmp_path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    with pytest.raises(NoFaceError, match="None of 1 images"):
        resting_faces([tmp_path / "black.png"], side=32, detector=detector)


def test_few_labels_compares_both_starts_on_the_same_pairs(detector, tmp_path) -> None:
    faces = resting_faces([], side=32, detector=detector)
    net = MiacSettings(side=32, width=4, stride=8, condition=8)
    how = FewLabels(
        PretrainSettings(net=net, epochs=1, batch=4, latents="pixels"), MiacLearner(net=net, epochs=1), videos=1,
        seconds=6.0, tests=1,
    )  # fmt: skip
    told: list[str] = []
    found = bench_few_labels(faces, how, shots=(1,), seeds=2, folder=tmp_path, tell=told.append)
    names = [one.name for one in found]
    assert names[1:] == [f"1 pairs a class, {len(CLASSES)} classes: {part}" for part in
                         ("scratch", "pre-trained", "gain")]  # fmt: skip
    scratch, pretrained, gain = (one.value for one in found[1:])
    assert gain == pytest.approx(pretrained - scratch)
    assert len(told) == 4
    assert (tmp_path / "miacnet.safetensors").exists()


def test_the_command_writes_what_it_measured(tmp_path) -> None:
    out = tmp_path / "numbers.json"
    result = run(app, ["bench", "mie", "--parts", "spotting", "--videos", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    written = json.loads(out.read_text())
    assert written["measurements"][0]["bar"] == 0.6
    assert run(app, ["bench", "mie", "--parts", "pears"]).exit_code == 2
