"""MA2MI pre-training: the position losses, pairs out of videos, a run that goes on, and fine-tuning from it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from vlfer.bench.mie_made import CLASSES, made_pairs, made_videos, resting_faces
from vlfer.errors import ConfigError, DataError
from vlfer.faces.detect import build_detector
from vlfer.models.miacnet import Miacnet, MiacSettings
from vlfer.training.mie_miacnet import MiacLearner, frames_for
from vlfer.training.mie_position import consistency, divergence, equivariance, moved, random_movement
from vlfer.training.mie_pretrain import Pretraining, PretrainSettings, draw_pairs, load_miacnet
from vlfer.training.mie_videos import FaceVideos

NET = MiacSettings(side=32, width=4, stride=8, condition=16)
SETTINGS = PretrainSettings(net=NET, epochs=2, batch=8, autoencoder_steps=5)


@pytest.fixture(scope="module")
def faces():
    return resting_faces([], side=32, detector=build_detector())


@pytest.fixture(scope="module")
def videos(faces) -> FaceVideos:
    return made_videos(faces, count=2, duration_s=6, seed=0)


def _unit(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=1)


def test_divergence_is_1_for_equal_positions_and_0_for_orthogonal_ones() -> None:
    same = torch.zeros(1, 4, 2, 2)
    same[:, 0] = 1
    apart = torch.eye(4)[None].reshape(1, 4, 2, 2)
    assert divergence(same).item() == pytest.approx(1)
    assert divergence(apart).item() == pytest.approx(0, abs=1e-6)


def test_consistency_finds_the_same_positions_in_any_order() -> None:
    places = torch.nn.functional.normalize(torch.eye(4), dim=0)[None].reshape(1, 4, 2, 2)
    shuffled = places.flatten(2)[:, :, [2, 0, 3, 1]].reshape(places.shape)
    assert consistency(places, shuffled).item() == pytest.approx(0, abs=1e-6)
    other = _unit(1, 4, 2, 2)
    assert consistency(places, other).item() > 0.05


def test_consistency_matches_one_to_one() -> None:
    one = torch.zeros(1, 4, 1, 2)
    one[:, 0] = 1  # both positions look alike
    two = torch.zeros(1, 4, 1, 2)
    two[:, 0, :, 0], two[:, 1, :, 1] = 1, 1
    # A best match each would give 0; one to one leaves the second position without a match.
    assert consistency(one, two).item() == pytest.approx(0.5)


def test_equivariance_is_0_if_the_map_moves_with_the_face() -> None:
    places = torch.nn.functional.interpolate(_unit(2, 6, 4, 4), (16, 16), mode="bilinear")
    theta = random_movement(2, generator=torch.Generator().manual_seed(1))
    assert equivariance(moved(places, theta), places, theta).item() == pytest.approx(0, abs=1e-3)
    assert equivariance(places, places, theta).item() > 0.02


def test_movements_stay_in_their_limits() -> None:
    theta = random_movement(500, generator=torch.Generator().manual_seed(0), turn_deg=10, shift=0.05)
    assert float(theta[:, 0, 1].abs().max()) <= np.sin(np.deg2rad(10)) + 1e-6
    assert float(theta[:, :, 2].abs().max()) <= 0.1


def test_pairs_are_of_one_stretch_and_as_far_apart_as_was_asked() -> None:
    count = 40
    marks = np.arange(count, dtype=np.uint8)
    faces = np.broadcast_to(marks[:, None, None, None], (count, 4, 4, 3)).copy()
    stretch = np.repeat([0, 1], [25, 15])
    videos = FaceVideos((faces,), (np.arange(count) / 20,), (stretch,))
    first, second = videos.pairs(shortest_s=0.1, longest_s=0.25).draw(400, rng=np.random.default_rng(0))
    one, two = first[:, 0, 0, 0].astype(int), second[:, 0, 0, 0].astype(int)
    assert set((two - one).tolist()) == {2, 3, 4, 5}
    assert (stretch[one] == stretch[two]).all()
    assert {0, 24 - 2, 25, 39 - 2} <= set(one.tolist())


def test_slow_video_gives_no_pairs() -> None:
    faces = np.zeros((3, 4, 4, 3), np.uint8)
    videos = FaceVideos((faces,), (np.arange(3) * 1.0,), (np.zeros(3, np.int64),))
    with pytest.raises(DataError, match="apart"):
        videos.pairs(shortest_s=0.03, longest_s=0.3)


def test_both_frames_of_a_pair_are_changed_alike(videos) -> None:
    pairs = FaceVideos(
        (np.repeat(videos.faces[0][:1], 10, axis=0),), (np.arange(10) / 30,), (np.zeros(10, np.int64),)
    ).pairs(shortest_s=0.03, longest_s=0.2)
    first, second = draw_pairs(pairs, 6, seed=3)
    torch.testing.assert_close(first, second)
    assert not torch.equal(first[0], first[1])


def test_a_stopped_run_goes_on_to_the_same_weights(videos, tmp_path) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    for folder in (whole, parted):
        folder.mkdir()
    Pretraining(videos, SETTINGS, whole).run()

    def stop(what: str, done: int, total: int) -> None:
        if what.startswith("pre-training") and done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pretraining(videos, SETTINGS, parted).run(hook=stop)
    again = Pretraining(videos, SETTINGS, parted)
    assert 0 < again.step < again.total_steps
    again.run()
    one, two = load_miacnet(whole)[0].state_dict(), load_miacnet(parted)[0].state_dict()
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], msg=name)
    rows = list(csv.DictReader((parted / "log.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]


def test_a_folder_of_another_run_is_refused(videos, tmp_path) -> None:
    Pretraining(videos, SETTINGS, tmp_path)
    with pytest.raises(ConfigError, match="other settings"):
        Pretraining(videos, PretrainSettings(net=NET, batch=9, epochs=2), tmp_path)


def test_changed_weights_are_refused(videos, tmp_path) -> None:
    Pretraining(videos, PretrainSettings(net=NET, epochs=1, batch=4, latents="pixels"), tmp_path).run()
    card = json.loads((tmp_path / "miacnet.json").read_text())
    assert card["net"]["side"] == 32
    assert set(card["losses"]) == {"reconstruction", "divergence", "consistency", "equivariance", "total"}
    data = bytearray((tmp_path / "miacnet.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "miacnet.safetensors").write_bytes(bytes(data))
    with pytest.raises(DataError, match="not those of its card"):
        load_miacnet(tmp_path)


def test_every_made_class_is_in_every_round_and_made_again_alike(faces) -> None:
    one, two = (made_pairs(faces, per_class=2, seed=5) for _ in range(2))
    assert np.bincount(one.label).tolist() == [2] * len(CLASSES)
    assert one.sha256 == two.sha256
    assert one.sha256 != made_pairs(faces, per_class=2, seed=6).sha256


def test_fine_tuning_fits_what_it_sees_and_starts_from_the_run(faces, videos, tmp_path) -> None:
    samples = made_pairs(faces, per_class=4, seed=0)
    two = samples.take(np.flatnonzero(samples.label < 2))
    learner = MiacLearner(net=NET, epochs=80, rate=1e-2, turn_deg=0, shift=0)
    *_, classify = learner.fit(two, seed=0)
    probability = classify(two.faces)
    assert probability.shape == (8, len(CLASSES))
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-5)
    assert (probability.argmax(axis=1) == two.label).mean() >= 0.75
    Pretraining(videos, PretrainSettings(net=NET, epochs=1, batch=4, latents="pixels"), tmp_path).run()
    started = MiacLearner(start=str(tmp_path), epochs=1, rate=0.0, decay=0.0)
    assert started.settings["start"] == load_miacnet(tmp_path)[1]["weights_sha256"]
    next(started.fit(two, seed=0))


def test_the_same_seed_gives_the_same_answers(faces) -> None:
    samples = made_pairs(faces, per_class=2, seed=0)
    learner = MiacLearner(net=NET, epochs=2)
    answers = [list(learner.fit(samples, seed=4))[-1](samples.faces) for _ in range(2)]
    np.testing.assert_array_equal(*answers)


def test_small_faces_are_not_magnified(faces) -> None:
    samples = made_pairs(faces, per_class=1, seed=0)
    with pytest.raises(DataError, match="the network reads 64 px"):
        frames_for(samples.faces, 64)


def test_a_network_of_another_side_reads_shrunk_faces(faces) -> None:
    samples = made_pairs(faces, per_class=1, seed=0)
    onset, apex = frames_for(samples.faces, 16)
    assert onset.shape == apex.shape == (len(samples), 3, 16, 16)
    net = Miacnet(MiacSettings(side=16, width=4, stride=8, condition=8)).eval()
    assert net(onset, apex).shape == (len(samples), 8)
