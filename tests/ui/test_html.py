import json

import numpy as np
import pytest

from vlfer.errors import ImageReadError, VlferError
from vlfer.serve.ui_engine import SentenceScore, mean_probability
from vlfer.serve.ui_export import report_csv, report_json, report_vtt
from vlfer.serve.ui_guard import explain, guarded
from vlfer.serve.ui_html import bars, clock, esc, percent, picture_uri, problem, sentence_list
from vlfer.types import Prediction, Report

NASTY = "<script>alert(1)</script>\"' ${alert(2)} {{constructor}} `x`"


def test_typed_text_becomes_no_markup_and_no_template() -> None:
    shown = esc(NASTY)
    for sign in "<>\"'${}`":
        assert sign not in shown
    pages = (
        bars([(NASTY, 0.7), ("calm", 0.3)], caption=NASTY),
        sentence_list(((NASTY, (SentenceScore(NASTY, 0.1),)),), first=NASTY),
        problem(VlferError(NASTY, why=NASTY, fix=NASTY)),
    )
    for page in pages:
        assert "<script" not in page
        assert "${" not in page
        assert "{{" not in page
        assert "alert(1)" in page


def test_bars_are_a_table_with_numbers_and_a_mark_beside_the_colour() -> None:
    page = bars([("awe", 0.62), ("calm", 0.38)], similarity=(0.31, -0.02), threshold=0.5, decided="awe",
                before={"awe": 0.5, "calm": 0.5}, caption="Labels")  # fmt: skip
    assert page.count('scope="row"') == 2
    assert page.index("awe") < page.index("calm")
    assert 'aria-label="chosen"' in page
    assert "62&nbsp;%" in page
    assert "+0.31" in page
    assert "▲&nbsp;12" in page
    assert "▼&nbsp;12" in page
    assert "left:50.0%" in page


def test_many_labels_are_folded_not_lost() -> None:
    page = bars([(f"label {i}", 1 / 20) for i in range(20)], caption="Labels", most=8)
    assert "12 more labels" in page
    assert all(f"label {i}" in page for i in range(20))


def test_numbers() -> None:
    assert (percent(0.0), percent(0.001), percent(0.876)) == ("0&nbsp;%", "&lt;1&nbsp;%", "88&nbsp;%")
    assert (clock(0), clock(62.54), clock(59.96)) == ("0:00.0", "1:02.5", "1:00.0")


def test_picture_is_scaled_and_held_in_its_address() -> None:
    small, large = (picture_uri(np.zeros((s, s, 3), np.uint8), longest_px=64) for s in (64, 900))
    assert small.startswith("data:image/jpeg;base64,")
    assert len(large) < 3 * len(small)


def test_errors_become_cards_without_trace_or_path() -> None:
    card = explain(ImageReadError("The file '/tmp/vlfer-x1/abc/photo.txt' is no image.", why="It is text.", fix="JPEG"))
    assert "/tmp" not in card
    assert "photo.txt" in card
    assert all(part in card for part in ("is no image", "Why.", "Try.", 'role="alert"'))

    @guarded(failed=lambda text: text)
    def broken() -> str:
        raise KeyError("/secret/path/inside")

    assert "KeyError" in broken()
    assert "secret" not in broken()
    assert "Traceback" not in broken()


@pytest.fixture
def report() -> Report:
    def segment(start: float, end: float, track: int, label: str | None, shares: tuple[float, float]) -> Prediction:
        top = tuple(sorted(zip(("=awe", "calm <b>"), shares, strict=True), key=lambda pair: -pair[1]))
        return Prediction(start, end, track, label, max(shares), top, reason="" if label else "tie")

    return Report("/private/cache/film.mp4", "ok", (
        segment(0.0, 1.0, 0, "=awe", (0.9, 0.1)), segment(1.0, 4.0, 0, None, (0.5, 0.5)),
        segment(2.0, 3.0, 1, "calm <b>", (0.2, 0.8)),
    ))  # fmt: skip


def test_csv_holds_every_segment_and_runs_no_formula(report: Report) -> None:
    lines = report_csv(report).splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("1,0.000,1.000,'=awe,0.9000")
    assert not any(cell.startswith("=") for line in lines for cell in line.split(","))


def test_json_tells_no_path(report: Report) -> None:
    content = json.loads(report_json(report))
    assert content["source"] == "film.mp4"
    assert len(content["predictions"]) == 3


def test_subtitles_are_webvtt(report: Report) -> None:
    text = report_vtt(report)
    assert text.startswith("WEBVTT")
    assert "00:00:02.000 --> 00:00:03.000" in text
    assert "<b>" not in text


def test_mean_weighs_segments_by_length(report: Report) -> None:
    means = mean_probability([p for p in report.predictions if p.track_id == 0])
    assert means["=awe"] == pytest.approx((0.9 * 1 + 0.5 * 3) / 4)
    assert sum(means.values()) == pytest.approx(1.0)
