import numpy as np
import pytest

from vlfer.errors import DataError, ShapeError
from vlfer.micro.samples import FlowSamples, load_flow_archive, save_archive


def test_archive_round_trip(samples: FlowSamples, tmp_path) -> None:
    save_archive(samples, tmp_path / "a.npz")
    again = load_flow_archive(tmp_path / "a.npz")
    assert again.sha256 == samples.sha256
    assert again.classes == samples.classes


def test_one_name_in_two_data_sets_is_two_people(samples: FlowSamples) -> None:
    assert len(np.unique(samples.subject)) == 3
    assert len(np.unique(samples.subject_keys)) == 6


def test_hash_depends_on_every_part(samples: FlowSamples) -> None:
    changed = samples.take(np.arange(len(samples)))
    changed.flow[0, 0, 0, 0] ^= 1
    assert changed.sha256 != samples.sha256
    assert samples.take(np.arange(len(samples))[::-1]).sha256 != samples.sha256


@pytest.mark.parametrize("key", ["flow", "label", "classes", "subject"])
def test_missing_key_is_named(samples: FlowSamples, tmp_path, key: str) -> None:
    save_archive(samples, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as archive:
        rest = {name: archive[name] for name in archive.files if name != key}
    np.savez(tmp_path / "b.npz", **rest)
    with pytest.raises(DataError, match=f"lacks {key}"):
        load_flow_archive(tmp_path / "b.npz")


def test_repeated_clip_is_refused(samples: FlowSamples, tmp_path) -> None:
    save_archive(samples.take(np.array([0, 1, 2, 1])), tmp_path / "a.npz")
    with pytest.raises(DataError, match="twice, in rows 1 and 3"):
        load_flow_archive(tmp_path / "a.npz")


def test_missing_damaged_and_bare_files(tmp_path) -> None:
    with pytest.raises(DataError, match="no flow archive"):
        load_flow_archive(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="could not be read"):
        load_flow_archive(tmp_path / "text.npz")
    (tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises(DataError):
        load_flow_archive(tmp_path / "empty.npz")
    np.save(tmp_path / "bare.npy", np.zeros(3))
    with pytest.raises(DataError):
        load_flow_archive(tmp_path / "bare.npy")


def test_labels_outside_the_classes(samples: FlowSamples) -> None:
    with pytest.raises(DataError, match="Labels run from 0 to 7"):
        FlowSamples(
            flow=samples.flow[:2], label=np.array([0, 7]), dataset=samples.dataset[:2], subject=samples.subject[:2],
            clip=samples.clip[:2], classes=samples.classes,
        )  # fmt: skip


def test_wrong_shape(samples: FlowSamples) -> None:
    with pytest.raises(ShapeError, match=r"\(28, 28\)|28"):
        FlowSamples(
            flow=samples.flow[:, :14], label=samples.label, dataset=samples.dataset, subject=samples.subject,
            clip=samples.clip, classes=samples.classes,
        )  # fmt: skip
