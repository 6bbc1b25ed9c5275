import csv
import itertools
import json
import re
import sys
from dataclasses import replace
from datetime import datetime
from xml.etree import ElementTree

import av
import numpy as np
import pytest

from vlfer.errors import ConfigError, EnvironmentProblem
from vlfer.export.film import TagTrack, write_annotated
from vlfer.export.overlay import Tag, draw_tags
from vlfer.export.subtitles import cues, write_elan, write_srt, write_vtt
from vlfer.export.summary import summarise
from vlfer.export.tables import frame_rows, write_frames_csv, write_frames_parquet
from vlfer.export.write import KINDS, check_kinds, write_video_results


def test_each_face_and_frame_is_a_row(analysis, tmp_path):
    path = tmp_path / "frames.csv"
    write_frames_csv(analysis.timelines, path)
    rows = list(csv.DictReader(path.open()))
    assert len(rows) == sum(len(line.frames) for line in analysis.timelines)
    first = rows[0]
    assert (float(first["time_s"]), first["track_id"], first["best"]) == (0.0, "0", "joy")
    assert float(first["p:joy"]) == pytest.approx(0.8)
    for row in rows:
        assert sum(float(value) for name, value in row.items() if name.startswith("p:")) == pytest.approx(1, abs=1e-4)


def test_parquet_says_the_same_as_csv(analysis, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_frames_parquet(analysis.timelines, tmp_path / "frames.parquet")
    table = parquet.read_table(tmp_path / "frames.parquet").to_pylist()
    for ours, theirs in zip(table, frame_rows(analysis.timelines), strict=True):
        assert ours["best"] == theirs["best"]
        assert ours["track_id"] == theirs["track_id"]
        for name in ("time_s", "x1", "y2", "probability", "p:grief & <awe>"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-2)


def test_parquet_without_pyarrow_says_what_to_do(analysis, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EnvironmentProblem, match="pyarrow"):
        write_frames_parquet(analysis.timelines, tmp_path / "frames.parquet")


def test_cues_do_not_overlap_and_name_those_who_are_there(analysis):
    found = cues(analysis.report.predictions)
    assert [(start_s, end_s, len(lines)) for start_s, end_s, lines in found] == [
        (0.0, 1.0, 1), (1.0, 2.0, 2), (2.0, 3.0, 1), (3.0, 4.0, 1),
    ]  # fmt: skip
    assert found[1][2] == ["face 1: joy (80%)", "face 2: grief & <awe> (70%)"]
    for before, after in itertools.pairwise(found):
        assert before[1] <= after[0]


def test_one_face_is_not_named(analysis):
    alone = [p for p in analysis.report.predictions if p.track_id == 0]
    assert cues(alone)[0][2] == ["joy (80%)"]


def test_subtitles_are_read_by_ffmpeg(analysis, tmp_path):
    write_srt(analysis.report.predictions, tmp_path / "film.srt")
    write_vtt(analysis.report.predictions, tmp_path / "film.vtt")
    assert "00:00:01,000 --> 00:00:02,000\nface 1: joy (80%)" in (tmp_path / "film.srt").read_text()
    assert "grief &amp; &lt;awe&gt;" in (tmp_path / "film.vtt").read_text()
    for name in ("film.srt", "film.vtt"):
        with av.open(str(tmp_path / name)) as container:
            packets = [packet for packet in container.demux() if packet.size]
        assert len(packets) == 4
        assert float(packets[1].pts * packets[1].time_base) == pytest.approx(1.0)


# Of EAFv3.0.xsd (Max Planck Institute for Psycholinguistics): the order of what a document holds, and per element the
# attributes that it must and may have.
EAF_ORDER = ("LICENSE", "HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE", "LOCALE", "LANGUAGE", "CONSTRAINT")
EAF_ATTRIBUTES = {
    "ANNOTATION_DOCUMENT": ({"AUTHOR", "DATE", "VERSION"}, {"FORMAT"}),
    "HEADER": (set(), {"MEDIA_FILE", "TIME_UNITS"}),
    "MEDIA_DESCRIPTOR": ({"MEDIA_URL", "MIME_TYPE"}, {"RELATIVE_MEDIA_URL", "TIME_ORIGIN", "EXTRACTED_FROM"}),
    "PROPERTY": (set(), {"NAME"}),
    "TIME_ORDER": (set(), set()),
    "TIME_SLOT": ({"TIME_SLOT_ID"}, {"TIME_VALUE"}),
    "TIER": ({"TIER_ID", "LINGUISTIC_TYPE_REF"}, {"PARTICIPANT", "ANNOTATOR", "DEFAULT_LOCALE", "PARENT_REF"}),
    "ANNOTATION": (set(), set()),
    "ALIGNABLE_ANNOTATION": ({"ANNOTATION_ID", "TIME_SLOT_REF1", "TIME_SLOT_REF2"}, {"EXT_REF", "LANG_REF"}),
    "ANNOTATION_VALUE": (set(), set()),
    "LINGUISTIC_TYPE": ({"LINGUISTIC_TYPE_ID"}, {"TIME_ALIGNABLE", "CONSTRAINTS", "GRAPHIC_REFERENCES"}),
}


def check_eaf(path):
    """Hold a document against the rules of the schema, and of ELAN for independent tiers; return it."""
    root = ElementTree.parse(path).getroot()
    places = [EAF_ORDER.index(child.tag) for child in root]
    assert places == sorted(places)
    assert places.count(EAF_ORDER.index("HEADER")) == places.count(EAF_ORDER.index("TIME_ORDER")) == 1
    for element in root.iter():
        must, may = EAF_ATTRIBUTES[element.tag]
        names = {name for name in element.keys() if not name.startswith("{")}  # noqa: SIM118, an element is no dict
        assert must <= names <= must | may, element.tag
    datetime.fromisoformat(root.get("DATE"))
    assert root.find("HEADER").get("TIME_UNITS") == "milliseconds"
    slots = {slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")}
    assert list(slots.values()) == sorted(slots.values())
    assert min(slots.values(), default=0) >= 0
    own = [slot.get("TIME_SLOT_ID") for slot in root.iter("TIME_SLOT")]
    own += [annotation.get("ANNOTATION_ID") for annotation in root.iter("ALIGNABLE_ANNOTATION")]
    assert len(set(own)) == len(own)  # xsd:ID is unique in the document
    assert all(re.fullmatch(r"[A-Za-z_][\w.-]*", name) for name in own)
    referred = [a.get(f"TIME_SLOT_REF{i}") for a in root.iter("ALIGNABLE_ANNOTATION") for i in (1, 2)]
    assert sorted(referred) == sorted(slots)  # each slot belongs to one edge
    kinds = {kind.get("LINGUISTIC_TYPE_ID"): kind for kind in root.iter("LINGUISTIC_TYPE")}
    names = [tier.get("TIER_ID") for tier in root.iter("TIER")]
    assert len(set(names)) == len(names)
    for tier in root.iter("TIER"):
        assert kinds[tier.get("LINGUISTIC_TYPE_REF")].get("TIME_ALIGNABLE") == "true"
        spans = [
            (slots[a.get("TIME_SLOT_REF1")], slots[a.get("TIME_SLOT_REF2")]) for a in tier.iter("ALIGNABLE_ANNOTATION")
        ]
        assert all(start < end for start, end in spans)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    last = root.find("HEADER/PROPERTY[@NAME='lastUsedAnnotationId']")
    assert int(last.text) == len(list(root.iter("ALIGNABLE_ANNOTATION")))
    return root, slots


def test_elan_tiers_hold_the_segments(analysis, tmp_path):
    path = tmp_path / "film.eaf"
    write_elan(analysis.report.predictions, path, media=tmp_path / "film.mp4")
    root, slots = check_eaf(path)
    assert [tier.get("TIER_ID") for tier in root.iter("TIER")] == ["face 1", "face 2"]
    told = [
        (slots[a.get("TIME_SLOT_REF1")], slots[a.get("TIME_SLOT_REF2")], a.findtext("ANNOTATION_VALUE"))
        for a in root.iter("ALIGNABLE_ANNOTATION")
    ]
    assert told[:2] == [(0, 2000, "joy"), (2000, 3000, "unclear")]


def test_elan_takes_no_segment_that_is_empty_overlaps_or_holds_what_xml_does_not(analysis, tmp_path):
    some = analysis.report.predictions[0]
    spans = [(1.0, 1.0002), (1.0003, 1.0004), (0.2, 1.00049), (2.0, 3.0), (2.9996, 4.0)]
    odd = [replace(some, start_s=start, end_s=end, label="a\x07 <b> & \ufffe c") for start, end in spans]
    path = tmp_path / "odd.eaf"
    write_elan(odd, path, media=tmp_path / "a film.mp4")
    root, _ = check_eaf(path)
    assert {value.text for value in root.iter("ANNOTATION_VALUE")} == {"a <b> &  c"}
    assert root.find("HEADER/MEDIA_DESCRIPTOR").get("MEDIA_URL").endswith("/a%20film.mp4")


def test_elan_of_nothing_is_a_document(tmp_path):
    write_elan([], tmp_path / "none.eaf", media=tmp_path / "film.mp4")
    check_eaf(tmp_path / "none.eaf")


def test_a_person_is_summed_up(analysis):
    first, second = summarise(analysis)
    assert first["share"] == {"joy": 0.5, "unclear": 0.25, "grief & <awe>": 0.25}
    assert first["changes"] == 2
    assert first["peaks"]["joy"]["probability"] == pytest.approx(0.8)
    assert (second["face"], second["first_s"], second["seen_s"]) == (2, 1.0, 2.0)
    assert sum(first["mean_probability"].values()) == pytest.approx(1.0, abs=1e-3)


def test_a_box_moves_between_sightings_and_is_gone_with_the_face(analysis):
    track = TagTrack(analysis.timelines[1], threshold=None, tie_margin=0.05)
    assert track.at(0.5) is None
    assert track.at(3.5) is None
    between = track.at(1.05)
    assert float(between.box[0]) == pytest.approx(100.5)
    assert between.label == "grief & <awe>"
    assert TagTrack(analysis.timelines[0], threshold=None, tie_margin=0.05).at(2.5).label is None


def test_drawing_leaves_the_frame_and_far_places_alone():
    pixels = np.full((240, 320, 3), 100, np.uint8)
    tag = Tag(1, np.array([100, 100, 160, 160], np.float32), "joy", (("joy", 0.8), ("grief", 0.1)))
    drawn = draw_tags(pixels, [tag])
    assert (pixels == 100).all()
    assert (drawn[100:160, 98:104] != 100).any()
    assert (drawn[200:, :60] == 100).all()
    wide = Tag(2, np.array([-50, -40, 400, 300], np.float32), None, (("a very long label " * 9, 0.5),))
    assert draw_tags(pixels, [wide, tag], footer="x" * 90).shape == pixels.shape


def decoded(path):
    with av.open(str(path)) as container:
        frames = [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = [float(f.pts * f.time_base) for f in (container.decode(audio=0) if container.streams.audio else ())]
    return frames, sound


def test_the_annotated_video_has_all_frames_the_boxes_and_the_sound(analysis, film, tmp_path):
    path = tmp_path / "annotated.mp4"
    told = []
    assert write_annotated(film, analysis.timelines, path, on_frames=told.append) == 40
    frames, sound = decoded(path)
    np.testing.assert_allclose([time_s for time_s, _ in frames], np.arange(40) / 10, atol=1e-3)
    plain, tone = decoded(film)
    assert len(sound) == len(tone)
    assert np.abs(frames[5][1].astype(int) - plain[5][1])[28:72, 20:60].max() > 60
    assert told[-1] == 40
    assert [p.name for p in tmp_path.iterdir()] == ["annotated.mp4"]


def test_a_part_is_annotated_with_its_own_sound(analysis, film, tmp_path):
    path = tmp_path / "annotated.mp4"
    assert write_annotated(film, analysis.timelines, path, start_s=1.0, end_s=3.0) == 20
    frames, sound = decoded(path)
    assert frames[0][0] == pytest.approx(0.0, abs=1e-3)
    assert 1.8 < sound[-1] - sound[0] <= 2.0


def test_a_video_that_cannot_be_written_leaves_nothing(analysis, film, tmp_path, monkeypatch):
    import vlfer.export.film as module

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        write_annotated(film, analysis.timelines, tmp_path / "annotated.mp4")
    assert list(tmp_path.iterdir()) == []


def test_all_kinds_of_files_are_written(analysis, film, tmp_path):
    pytest.importorskip("pyarrow")
    written = write_video_results(analysis, film, tmp_path / "film", kinds=KINDS)
    assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()}
    assert json.loads((tmp_path / "film.summary.json").read_text())["cuts_s"] == [2.0]
    assert len(json.loads((tmp_path / "film.segments.json").read_text())) == len(analysis.report.predictions)
    assert len((tmp_path / "film.segments.csv").read_text().splitlines()) == 1 + len(analysis.report.predictions)


def test_kinds_are_checked():
    assert check_kinds(["srt", "srt", "video"]) == ("srt", "video")
    assert "timeline" in check_kinds(["all"], extra=["timeline"])
    with pytest.raises(ConfigError, match="Did you mean 'frames'"):
        check_kinds(["frame"])
