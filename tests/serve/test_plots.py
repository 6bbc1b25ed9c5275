import numpy as np
import pytest
from PIL import Image

from vlfer.errors import ShapeError
from vlfer.segments import Timeline, merge_cells
from vlfer.serve.plots import MOST_FACES, PALETTE, plot_faces, plot_timeline, save_figure
from vlfer.types import Label, LabelSet, Prediction, Scores


def prediction(i=0, *, label="joy", reason=""):
    top = (("joy", 0.6), ("grief", 0.3), ("a very long phrase that goes on and on about a face", 0.1))
    box = (10.0 + 30 * i, 10.0, 35.0 + 30 * i, 40.0)
    return Prediction(0.0, 0.0, i, label, 0.6, top, reason=reason, box=box)


def words_of(figure):
    texts = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    return " ".join(" ".join(texts).split())


def timeline(track_id=0, *, n_labels=10, n=20, gap=False):
    labels = LabelSet(tuple(Label(f"label {i}") for i in range(n_labels)))
    rows = np.random.default_rng(track_id).dirichlet(np.ones(n_labels) * 0.3, size=n).astype(np.float32)
    start_s = np.arange(n) * 0.25 + np.where(np.arange(n) > n // 2, 3.0 if gap else 0.0, 0.0)
    scores = Scores(similarity=rows, probability=rows, temperature=1.0, labels=labels)
    thumbnail = np.full((16, 16, 3), 90, np.uint8)
    line = Timeline(track_id, start_s, start_s + 0.25, scores, tuple((float(t), thumbnail) for t in start_s[::4]))
    return line, merge_cells(line, boxes=np.zeros((n, 4), np.float32), box_times_s=start_s)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".pdf", ".svg"])
def test_a_picture_is_written_in_the_format_of_its_suffix(tmp_path, suffix):
    path = tmp_path / f"faces{suffix}"
    save_figure(plot_faces(np.zeros((60, 200, 3), np.uint8), [prediction()], title="a.jpg"), path)
    assert path.stat().st_size > 2000
    if suffix == ".png":
        with Image.open(path) as picture:
            assert picture.width > 500


def test_every_face_has_a_number_and_its_label_in_words():
    faces = [prediction(0), prediction(1, label=None, reason="'joy' and 'grief' tie (0.31 against 0.30)")]
    words = words_of(plot_faces(np.zeros((60, 200, 3), np.uint8), faces))
    for part in ("1 joy", "2 no clear label", "tie (0.31", "60%", "not felt emotion", "relative to the labels"):
        assert part in words


def test_more_faces_than_charts_are_told():
    faces = [prediction(i) for i in range(MOST_FACES + 3)]
    assert "3 more faces not charted" in words_of(plot_faces(np.zeros((60, 600, 3), np.uint8), faces))


def test_a_timeline_names_its_labels_and_sums_the_rest(tmp_path):
    parts = [timeline(0), timeline(1, gap=True)]
    predictions = [segment for _, segments in parts for segment in segments]
    figure = plot_timeline([line for line, _ in parts], predictions, title="clip.mp4")
    words = words_of(figure)
    for part in ("face 1", "face 2", "other", "time in seconds", "clip.mp4", "not felt emotion"):
        assert part in words
    save_figure(figure, tmp_path / "timeline.png")
    with Image.open(tmp_path / "timeline.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    drawn = [tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in PALETTE]
    assert set(drawn) <= colours


def test_the_stack_of_a_timeline_reaches_one_hundred_percent():
    line, segments = timeline(0)
    figure = plot_timeline([line], segments)
    area = next(axes for axes in figure.findobj() if getattr(axes, "get_ylabel", str)() == "probability")
    tops = [collection.get_paths()[0].vertices[:, 1].max() for collection in area.collections]
    assert max(tops) == pytest.approx(1.0, abs=1e-5)


def test_one_moment_can_be_drawn(tmp_path):
    line, segments = timeline(0, n=1, n_labels=2)
    save_figure(plot_timeline([line], segments), tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 2000


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ShapeError, match="no face"):
        plot_faces(np.zeros((60, 200, 3), np.uint8), [])
    with pytest.raises(ShapeError, match="no face"):
        plot_timeline([], [])
