import numpy as np
import pytest

from vlfer.sightings import Journal, Sightings


def sightings(first=0, n=4):
    owner = np.arange(n, dtype=np.int64)
    return Sightings(
        times_s=(first + np.arange(n)) / 10, cuts=np.zeros(n, bool), owner=owner,
        boxes=np.full((n, 4), first, np.float32), scores=np.ones(n, np.float32), looks=np.zeros((n, 3), np.float32),
        vectors=np.eye(8, dtype=np.float32)[:n], thumbs=np.zeros((1, 4, 4, 3), np.uint8),
        thumb_of=np.zeros(1, np.int64), notes=("seen",),
    )  # fmt: skip


def journal(tmp_path, **identity):
    return Journal(tmp_path / "deep" / "film.journal", identity={"path": "film.mp4", **identity})


def written(tmp_path, count=3):
    book = journal(tmp_path)
    assert list(book.replay()) == []
    for i in range(count):
        book.add(sightings(4 * i))
    book.close()
    return book.path


def test_what_was_added_is_read_again(tmp_path):
    written(tmp_path)
    again = list(journal(tmp_path).replay())
    assert [float(part.boxes[0, 0]) for part in again] == [0, 4, 8]
    for name in ("times_s", "vectors", "looks", "thumbs", "owner"):
        np.testing.assert_array_equal(getattr(again[0], name), getattr(sightings(), name))
    assert again[0].notes == ("seen",)


@pytest.mark.parametrize("cut", [1, 7, 40, 500])
def test_a_torn_end_is_cut_off_and_written_over(tmp_path, cut):
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    book = journal(tmp_path)
    assert len(list(book.replay())) == 2
    book.add(sightings(80))
    book.close()
    assert [float(part.boxes[0, 0]) for part in journal(tmp_path).replay()] == [0, 4, 80]


def test_another_film_or_setting_begins_anew(tmp_path):
    written(tmp_path)
    book = journal(tmp_path, faces="whole")
    assert list(book.replay()) == []
    book.close()
    assert list(journal(tmp_path).replay()) == []


def test_something_else_under_that_name_is_written_over(tmp_path):
    book = journal(tmp_path)
    book.path.parent.mkdir(parents=True)
    book.path.write_bytes(b"notes of mine")
    assert list(book.replay()) == []
