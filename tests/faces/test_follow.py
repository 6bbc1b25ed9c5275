import numpy as np
import pytest

from vlfer.errors import ConfigError
from vlfer.faces.appearance import LENGTH, appearance
from vlfer.faces.follow import FaceFollower
from vlfer.faces.shots import ShotDetector
from vlfer.faces.smooth import SquareSmoother
from vlfer.faces.track import FaceLinker
from vlfer.types import Face


def face(x, y=100.0, size=40.0, marks=False, tremble=0.0):
    box = np.array([x - size / 2, y - size / 2, x + size / 2, y + size / 2], np.float32)
    points = np.array([[-0.18, -0.1], [0.18, -0.1], [0, 0.1], [-0.12, 0.28], [0.12, 0.28]], np.float32) * size
    shift = np.array([x + tremble, y - tremble], np.float32)
    return Face(box, 0.9, (points + shift).astype(np.float32) if marks else None)


def scene(seed=0, level=0):
    pixels = np.random.default_rng(seed).integers(0, 60, (12, 20, 3)).repeat(16, axis=0).repeat(16, axis=1)
    return np.clip(pixels + level, 0, 255).astype(np.uint8)


class Follower:
    """Follows by moving every face one pixel to the right, until told that it is lost."""

    def __init__(self):
        self.lost = False
        self.calls = 0

    def follow(self, pixels, face):
        self.calls += 1
        if self.lost:
            return None
        return Face(face.box + np.array([1, 0, 1, 0], np.float32), face.score, face.landmarks)


class Finder:
    def __init__(self, *xs):
        self.xs = xs
        self.calls = 0

    def __call__(self, pixels):
        self.calls += 1
        return [face(x) for x in self.xs], "" if self.xs else "no face found"


def test_frames_are_searched_now_and_then_and_followed_in_between():
    find, follower = Finder(100), Follower()
    faces = FaceFollower(find, follower=follower, every_s=0.5, smooth=False)
    found = [faces.update(scene(), t / 10) for t in range(11)]
    assert [f.was_searched for f in found] == [t % 5 == 0 for t in range(11)]
    assert follower.calls == 8
    assert found[4].faces[0].box[0] == found[0].faces[0].box[0] + 4


def test_a_lost_face_and_a_cut_are_searched_at_once():
    find, follower = Finder(100), Follower()
    faces = FaceFollower(find, follower=follower, every_s=10.0)
    faces.update(scene(), 0.0)
    follower.lost = True
    assert faces.update(scene(), 0.1).was_searched
    follower.lost = False
    assert not faces.update(scene(), 0.2).was_searched
    cut = faces.update(scene(seed=1, level=150), 0.3)
    assert cut.is_cut
    assert cut.was_searched


def test_two_faces_that_become_one_are_searched():
    class Merging(Follower):
        def follow(self, pixels, face):
            return Face(np.array([100, 80, 140, 120], np.float32), 0.9)

    faces = FaceFollower(Finder(105, 130), follower=Merging(), every_s=10.0)
    faces.update(scene(), 0.0)
    assert faces.update(scene(), 0.1).was_searched


def test_without_a_follower_every_frame_is_searched():
    find = Finder(100)
    faces = FaceFollower(find, every_s=0.0)
    for t in range(5):
        faces.update(scene(), t / 10)
    assert find.calls == 5


def test_an_empty_scene_is_searched_less_often():
    find = Finder()
    faces = FaceFollower(find, follower=Follower(), every_s=0.5)
    notes = {faces.update(scene(), t / 20).note for t in range(60)}
    assert 8 <= find.calls <= 12
    assert notes == {"no face found"}


def test_a_negative_interval_is_refused():
    with pytest.raises(ConfigError, match="-1"):
        FaceFollower(Finder(), every_s=-1)


def test_cuts_are_seen_and_motion_and_light_are_not():
    shots = ShotDetector()
    wide = scene()
    drift = [shots.update(np.roll(wide, t, axis=1)) for t in range(20)]
    light = [
        shots.update(np.clip(np.roll(wide, 20, axis=1).astype(int) + 3 * t, 0, 255).astype(np.uint8)) for t in range(15)
    ]
    assert not any(drift + light)
    assert shots.update(scene(seed=3, level=150))
    assert not shots.update(scene(seed=3, level=150))


def test_a_trembling_face_is_steadied_and_a_moving_one_is_not_left_behind():
    noise = np.random.default_rng(0).normal(0, 0.5, 90)
    still, moving = SquareSmoother(), SquareSmoother()
    raw, smooth, lag = [], [], []
    for t in range(90):
        seen = face(100, marks=True, tremble=noise[t])
        raw.append(seen.landmarks[:, 0].mean())
        smooth.append(still.update(seen, t / 30).landmarks[:, 0].mean())
        seen = face(100 + 4 * t, marks=True)
        lag.append(abs(moving.update(seen, t / 30).landmarks[:, 0].mean() - seen.landmarks[:, 0].mean()))
    assert np.diff(smooth[30:]).std() < 0.6 * np.diff(raw[30:]).std()
    assert max(lag) < 0.1 * 40


def test_smoothing_moves_landmarks_as_a_whole():
    smoother = SquareSmoother()
    smoother.update(face(100, marks=True), 0.0)
    seen = face(103, size=44, marks=True)
    out = smoother.update(seen, 0.03)
    between = lambda marks: np.linalg.norm(marks[:, None] - marks[None], axis=2)  # noqa: E731
    ratio = between(out.landmarks)[np.triu_indices(5, 1)] / between(seen.landmarks)[np.triu_indices(5, 1)]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)


def test_faces_without_landmarks_pass():
    seen = face(100)
    assert SquareSmoother().update(seen, 0.0) is seen


def test_a_look_is_a_unit_vector_that_survives_light_and_size(portrait, detector):
    import cv2

    [seen] = detector.detect(portrait)
    look = appearance(portrait, seen)
    assert look.shape == (LENGTH,)
    assert float(np.linalg.norm(look)) == pytest.approx(1.0, abs=1e-5)
    dim = np.clip(portrait * 0.8, 0, 255).astype(np.uint8)
    small = cv2.resize(portrait, (300, 300), interpolation=cv2.INTER_AREA)
    scaled = Face(seen.box * 300 / 512, seen.score, (seen.landmarks * 300 / 512).astype(np.float32))
    recoloured = np.ascontiguousarray(portrait[:, ::-1, [2, 0, 1]])
    mirrored = seen.landmarks.copy()
    mirrored[:, 0] = 512 - mirrored[:, 0]
    x0, y0, x1, y1 = seen.box
    other = appearance(recoloured, Face(np.array([512 - x1, y0, 512 - x0, y1], np.float32), 0.9))
    assert float(look @ appearance(dim, seen)) > 0.9
    assert float(look @ appearance(small, scaled)) > 0.9
    assert float(look @ other) < 0.72


def looks(*numbers, noise=0.0, seed=0):
    """Unit vectors of people by number, a little noisy."""
    rows = np.eye(8)[list(numbers)] + noise * np.random.default_rng(seed).normal(size=(len(numbers), 8))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_crossing_faces_keep_their_ids_by_their_looks():
    linker = FaceLinker()
    for t in range(41):
        faces = [face(100 + 5 * t), face(300 - 5 * t, 104)]
        order = [0, 1] if t % 2 else [1, 0]
        ids = linker.update([faces[i] for i in order], t, looks=looks(*order, noise=0.1, seed=t))
        if t == 0:
            first = dict(zip(order, ids, strict=True))
        assert dict(zip(order, ids, strict=True)) == first


def test_a_face_hidden_behind_another_gets_its_id_back():
    linker = FaceLinker()
    for t in range(41):
        faces, who = [face(100 + 5 * t)], [0]
        if abs(t - 20) > 4:  # the second is hidden while the first passes
            faces, who = [*faces, face(300 - 5 * t)], [0, 1]
        assert linker.update(faces, t, looks=looks(*who)) == who


def blend(own, other, share):
    """A look that is partly somebody else's: of a face that comes out from behind another."""
    mixed = share * looks(own)[0] + (1 - share) * looks(other)[0]
    return mixed / np.linalg.norm(mixed)


@pytest.mark.parametrize("speed", [0.0, 2.0, 5.0])
def test_a_face_that_went_on_or_stopped_while_hidden_gets_its_id_back_half_hidden(speed):
    linker = FaceLinker(max_gap_frames=45)
    for t in range(10):
        linker.update([face(500), face(100 + 5 * t)], t, looks=looks(0, 1))
    found = [face(500), face(145 + 20 * speed)]
    both = np.stack([looks(0)[0], blend(1, 2, 0.4)]).astype(np.float32)
    assert float(both[1] @ looks(1)[0]) < 0.72
    assert linker.update(found, 29, looks=both) == [0, 1]


def test_somebody_else_on_the_way_of_a_hidden_face_is_new():
    linker = FaceLinker(max_gap_frames=45)
    for t in range(10):
        linker.update([face(500), face(100 + 5 * t)], t, looks=looks(0, 1))
    assert linker.update([face(500), face(195)], 29, looks=looks(0, 2)) == [0, 2]


def test_after_a_cut_people_are_known_again_and_strangers_are_new():
    linker = FaceLinker()
    for t in range(10):
        linker.update([face(100), face(300)], t, looks=looks(0, 1))
    assert linker.update([face(310), face(90), face(500)], 10, looks=looks(0, 2, 1), is_cut=True) == [0, 2, 1]
    # without a cut the places would have told the opposite
    assert linker.update([face(310), face(90), face(500)], 11, looks=looks(0, 2, 1)) == [0, 2, 1]


def test_somebody_who_looks_like_two_is_nobody():
    linker = FaceLinker()
    linker.update([face(100), face(300)], 0, looks=looks(0, 0, noise=0.01))
    assert linker.update([face(200)], 1, looks=looks(0), is_cut=True) == [2]


def test_after_a_cut_without_looks_everybody_is_new():
    linker = FaceLinker()
    linker.update([face(100)], 0)
    assert linker.update([face(100)], 1, is_cut=True) == [1]


def test_the_way_over_a_cut_is_no_motion():
    linker = FaceLinker()
    for t in range(5):
        linker.update([face(100), face(300)], t, looks=looks(0, 1))
    for t in range(5, 10):  # they have changed places, and stand still
        assert linker.update([face(300), face(100)], t, looks=looks(0, 1, noise=0.2, seed=t), is_cut=t == 5) == [0, 1]


def test_two_numbers_of_one_person_do_not_make_it_a_stranger():
    linker = FaceLinker()
    linker.update([face(100)], 0, looks=looks(0))
    linker.update([face(300)], 30, looks=looks(3))
    half = (looks(0) + looks(5))[0] / np.sqrt(2)
    assert linker.update([face(100)], 60, looks=half[None]) == [2]  # too little like before: a new number
    assert linker.update([face(100)], 90, looks=(looks(0) + 0.5 * looks(5)) / np.sqrt(1.25)) == [2]
