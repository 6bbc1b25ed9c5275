"""Sets of faces: what is read from which file, and that no training face is ever scored."""

import numpy as np
import pytest
from PIL import Image

from vlfer.bench.faces import Address, class_rows, load_faces, parse_address
from vlfer.errors import ConfigError, DataError
from vlfer.training.data import file_sha256, load_voted_faces, split_by_content


def card(path, *, validation=0.3, test=0.3, seed=0):
    recipe = {"data": {"validation": validation, "test": test}, "seed": seed}
    return {"data_sha256": file_sha256(path), "recipe": recipe}


def pixels(faces):
    return {image.tobytes() for image in faces.images}


def test_addresses():
    assert parse_address("wild@ekman7=a/b.csv") == Address("wild", "ekman7", parse_address("x=a/b.csv").path)
    assert parse_address("ferplus=f.npz").labels == "ferplus8"
    with pytest.raises(ConfigError, match="names no set"):
        parse_address("faces.npz")


def test_faces_that_a_backbone_learned_from_are_never_scored(votes_file):
    address = parse_address(f"own={votes_file}")
    faces = load_voted_faces(votes_file, classes=load_faces(address).labels.names)
    split = split_by_content(faces.images, validation=0.3, test=0.3, seed=0)
    training = {np.repeat(faces.images[i][..., None], 3, axis=2).tobytes() for i in split["train"]}
    parts = {
        part: load_faces(address, cards=[card(votes_file)], part=part) for part in ("validation", "test", "held-out")
    }
    assert all(not pixels(part) & training for part in parts.values())
    assert pixels(parts["validation"]) | pixels(parts["test"]) == pixels(parts["held-out"])
    assert len(parts["held-out"]) + len(training) == len(faces) == len(load_faces(address))
    assert parts["test"].part == "test"
    assert load_faces(address).part == "all"


def test_backbones_with_other_splits_share_what_all_held_out(votes_file):
    address = parse_address(f"own={votes_file}")
    one, other = card(votes_file, seed=0), card(votes_file, seed=5)
    both = load_faces(address, cards=[one, other], part="held-out")
    apart = [load_faces(address, cards=[c], part="held-out") for c in (one, other)]
    assert pixels(both) == pixels(apart[0]) & pixels(apart[1])
    assert 0 < len(both) < min(map(len, apart))


def test_another_archive_is_taken_whole(votes_file):
    stranger = {**card(votes_file), "data_sha256": "0" * 64}
    assert load_faces(parse_address(f"own={votes_file}"), cards=[stranger]).part == "all"


def test_labelled_jpegs_and_manifests_give_one_vote_a_face(jpeg_file, tmp_path):
    faces = load_faces(parse_address(f"lfw={jpeg_file}"))
    assert [image.shape[:2] for image in faces.images] == [(40, 40), (48, 40), (40, 40), (48, 40)]
    assert [faces.labels.names[i] for i in faces.truth] == ["happiness", "sadness", "fear", "happiness"]
    assert not faces.has_votes
    assert faces.votes.sum() == 4
    Image.fromarray(faces.images[1]).save(tmp_path / "a.png")
    (tmp_path / "m.csv").write_text("path,label\na.png,sad\n")
    manifest = load_faces(parse_address(f"m@ekman7={tmp_path / 'm.csv'}"))
    assert np.array_equal(manifest.images[0], faces.images[1])
    assert manifest.labels.names[manifest.truth[0]] == "sadness"
    assert len(manifest.labels) == 7


def test_all_faces_of_a_class(votes_file):
    faces = class_rows(parse_address(f"own={votes_file}"), "fear")
    assert len(faces) == 8
    assert set(faces.truth) == {faces.labels.index("fear")}


def test_bad_files_are_told(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "m.csv").write_text("path,label\nmissing.png,fear\n")
    with pytest.raises(DataError, match="does not exist"):
        load_faces(parse_address("a=nowhere.npz"))
    with pytest.raises(DataError, match="has the keys x"):
        load_faces(parse_address(f"a={tmp_path / 'other.npz'}"))
    with pytest.raises(DataError, match=r"missing\.png"):
        load_faces(parse_address(f"a={tmp_path / 'm.csv'}"))
    (tmp_path / "m.csv").write_text("path,label\na.png,boredom\n")
    with pytest.raises(DataError, match="boredom, which 'ferplus8' lacks"):
        load_faces(parse_address(f"a={tmp_path / 'm.csv'}"))
