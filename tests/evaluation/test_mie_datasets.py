"""Micro-expression data sets in their official layouts, with small real pictures, to flow archives."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from vlfer.cli.main import app
from vlfer.errors import DataError
from vlfer.evaluation.mie_datasets import load_clips
from vlfer.evaluation.mie_flows import collect_clips
from vlfer.evaluation.mie_report import PROTOCOLS
from vlfer.evaluation.sheets import read_rows
from vlfer.micro.samples import load_annotations, load_flow_archive

_NS = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def write_xlsx(path: Path, rows: list[list[object]]) -> None:
    """Write a workbook as spreadsheet programs do: shared strings, numbers as numbers, empty cells left out."""
    shared: list[str] = []
    lines = []
    for r, row in enumerate(rows, start=1):
        cells = ""
        for c, value in enumerate(row):
            address = f"{chr(65 + c)}{r}"
            if value is None:
                continue
            if isinstance(value, str):
                shared.append(value)
                cells += f'<c r="{address}" t="s"><v>{len(shared) - 1}</v></c>'
            else:
                cells += f'<c r="{address}"><v>{value}</v></c>'
        lines.append(f'<row r="{r}">{cells}</row>')
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as book:
        book.writestr(
            "xl/worksheets/sheet1.xml", f"<worksheet {_NS}><sheetData>{''.join(lines)}</sheetData></worksheet>"
        )
        strings = "".join(f"<si><t>{escape(text)}</t></si>" for text in shared)
        book.writestr("xl/sharedStrings.xml", f"<sst {_NS}>{strings}</sst>")
        book.writestr(
            "xl/workbook.xml",
            f'<workbook {_NS} xmlns:r="{_REL}"><sheets><sheet name="A" sheetId="1" r:id="rId7"/></sheets></workbook>',
        )
        book.writestr(
            "xl/_rels/workbook.xml.rels",
            '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            '<Relationship Id="rId7" Type="x" Target="worksheets/sheet1.xml"/></Relationships>',
        )


def face(strength: float) -> np.ndarray:
    """A portrait, (256, 256, 3), whose mouth corners are pulled by up to ``strength`` pixels."""
    whole = np.ascontiguousarray(skimage.data.astronaut()[60:220, 140:300])
    picture = cv2.resize(whole, (256, 256), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[0:256, 0:256].astype(np.float32)
    pull = strength * np.exp(-(((x - 134) / 40) ** 2 + ((y - 178) / 22) ** 2))
    return cv2.remap(picture, x, y + pull.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def write_frames(folder: Path, names: list[str]) -> None:
    """Write frames that are strongest at the second but last."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        strength = 4.0 * (i / (len(names) - 2) if i < len(names) - 1 else 0.3)
        Image.fromarray(face(strength)).save(folder / name, quality=95)


@pytest.fixture
def casme2(tmp_path: Path) -> Path:
    """Four coded clips: sound, without apex, of an emotion that is not counted, and without frames."""
    root = tmp_path / "CASME2"
    header = ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion"]
    rows: list[list[object]] = [header]
    rows += [
        [1, "EP02_01f", 46, 48, 50, "12", "happiness"],
        [1, "EP03_02", 46, "/", 50, "4+L10", "disgust"],
        [2, "EP01_01", 46, 48, 50, None, "others"],
        [3, "EP09_09", 46, 48, 50, "1+2", "surprise"],
    ]
    write_xlsx(root / "CASME2-coding-20140508.xlsx", rows)
    for subject, clip in (("sub01", "EP02_01f"), ("sub01", "EP03_02"), ("sub02", "EP01_01")):
        write_frames(root / "Cropped" / subject / clip, [f"reg_img{n}.jpg" for n in range(45, 51)])
    return root


@pytest.fixture
def samm(tmp_path: Path) -> Path:
    """Two clips; a preamble stands above the header."""
    root = tmp_path / "SAMM"
    rows: list[list[object]] = [["SAMM Micro-Expressions"], [], [None, "Codes by three coders"]]
    rows += [
        ["Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration",
         "Action Units", "Estimated Emotion"],
        [6, "006_1_2", 1, 5562, 5564, 5566, 5, "AU4", "Anger"],
        ["011", "011_1_1", 1, 10.0, 12.0, 14.0, 5, "AU12", "Happiness"],
    ]  # fmt: skip
    write_xlsx(root / "SAMM_Micro_FACS_Codes_v2.xlsx", rows)
    write_frames(root / "006" / "006_1_2", [f"006_{n:05d}.jpg" for n in range(5562, 5567)])
    write_frames(root / "011" / "011_1_1", [f"011_{n:05d}.jpg" for n in range(10, 15)])
    return root


@pytest.fixture
def smic(tmp_path: Path) -> Path:
    """One clip of each class of two people; no sheet and no apex."""
    root = tmp_path / "SMIC_all"
    for who, emotion in (("s01", "negative"), ("s01", "positive"), ("s02", "surprise")):
        clip = f"{who}_{emotion[:2]}_01"
        write_frames(root / "HS" / who / "micro" / emotion / clip, [f"image{n}.bmp" for n in range(559740, 559746)])
    return root


def test_a_sheet_reads_the_same_as_a_workbook_and_as_csv(tmp_path):
    rows = [["Subject", "a, b"], [None, "é <&>"], [], [1.0, "007"]]
    write_xlsx(tmp_path / "t.xlsx", rows)
    assert read_rows(tmp_path / "t.xlsx") == [["Subject", "a, b"], ["", "é <&>"], [], ["1", "007"]]
    (tmp_path / "t.csv").write_text('Subject;"a, b"\n;"é <&>"\n\n1;007\n', encoding="utf-8-sig")
    assert read_rows(tmp_path / "t.csv") == [["Subject", "a, b"], ["", "é <&>"], [], ["1", "007"]]
    (tmp_path / "broken.xlsx").write_bytes((tmp_path / "t.xlsx").read_bytes()[:300])
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / "broken.xlsx")


def test_casme2(casme2):
    happy, disgust, others, lost = load_clips("casme2", casme2)
    assert (happy.subject, happy.clip, happy.onset, happy.apex, happy.offset) == ("sub01", "EP02_01f", 46, 48, 50)
    assert (happy.units, happy.emotion, happy.problem) == ("12", "happiness", "")
    assert happy.frames[48].name == "reg_img48.jpg"
    assert list(happy.frames) == list(range(45, 51))
    assert (disgust.apex, disgust.units) == (None, "4+L10")
    assert others.subject == "sub02"
    assert "no frames" in lost.problem


def test_samm_below_its_preamble(samm):
    angry, happy = load_clips("samm", samm)
    assert (angry.subject, angry.onset, angry.apex, angry.emotion) == ("006", 5562, 5564, "anger")
    assert angry.frames[5564].name == "006_05564.jpg"
    assert (happy.subject, happy.onset, happy.problem) == ("011", 10, "")


def test_smic_has_no_apex(smic):
    clips = load_clips("smic", smic)
    assert [(c.subject, c.emotion, c.apex) for c in clips] == [
        ("s01", "negative", None), ("s01", "positive", None), ("s02", "surprise", None),
    ]  # fmt: skip
    assert (clips[0].onset, clips[0].offset) == (559740, 559745)


def test_mmew_and_casme3(tmp_path):
    header = ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion"]
    write_xlsx(tmp_path / "m" / "MMEW_Micro_Exp.xlsx", [header, ["S01", "S01-02-001", 1, 2, 3, "4", "others"]])
    write_frames(tmp_path / "m" / "Micro_Expression" / "others" / "S01-02-001", ["1.jpg", "2.jpg", "3.jpg"])
    [clip] = load_clips("mmew", tmp_path / "m")
    assert (clip.subject, clip.problem, len(clip.frames)) == ("S01", "", 3)
    header = ["Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion"]
    rows = [header, ["spNO.1", "a", 7, 8, 9, "4", "IV", "Happy"]]
    write_xlsx(tmp_path / "c" / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", rows)
    write_frames(tmp_path / "c" / "spNO.1" / "a" / "color", ["7.jpg", "8.jpg", "9.jpg"])
    [clip] = load_clips("CAS(ME)3", tmp_path / "c")
    assert (clip.subject, clip.emotion, clip.problem) == ("spNO.1", "happiness", "")


def test_wrong_coding_is_told(casme2):
    header = ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion"]
    rows = [header, [1, "EP02_01f", 48, 46, 50, "", "surprise"], [1, "EP03_02", 46, 99, 100, "", "surprise"]]
    write_xlsx(casme2 / "CASME2-coding-20140508.xlsx", rows)
    swapped, beyond = load_clips("casme2", casme2)
    assert "apex 46 is not after its onset 48" in swapped.problem
    assert "frame 99 is not among 45..50" in beyond.problem
    write_xlsx(casme2 / "CASME2-coding-20140508.xlsx", [header, [1, "EP02_01f", "?", 46, 50, "", "surprise"]])
    with pytest.raises(DataError, match="Row 2"):
        load_clips("casme2", casme2)
    write_xlsx(casme2 / "CASME2-coding-20140508.xlsx", [["Subject", "Film"], [1, "x"]])
    with pytest.raises(DataError, match="no header"):
        load_clips("casme2", casme2)


def test_wrong_roots_and_names_are_told(tmp_path):
    for name in ("casme2", "samm", "smic", "mmew", "casme3"):
        with pytest.raises(DataError, match="ooked for"):
            load_clips(name, tmp_path)
    with pytest.raises(DataError, match="Did you mean 'casme2'"):
        load_clips("casmeII2", tmp_path)


def test_what_protocols_count(casme2, samm, smic):
    composite, skipped = collect_clips({"casme2": casme2, "samm": samm, "smic": smic}, PROTOCOLS["megc2019"])
    named = [(clip.dataset, PROTOCOLS["megc2019"].classes[label]) for clip, label in composite]
    assert named == [
        ("casme2", "positive"), ("casme2", "negative"), ("casme2", "surprise"), ("samm", "negative"),
        ("samm", "positive"), ("smic", "negative"), ("smic", "positive"), ("smic", "surprise"),
    ]  # fmt: skip
    assert skipped == {"others": 1}
    five, skipped = collect_clips({"casme2": casme2}, PROTOCOLS["casme2-5"])
    assert [clip.emotion for clip, _ in five] == ["happiness", "disgust", "others", "surprise"]
    shutil.rmtree(smic / "HS" / "s02")
    with pytest.raises(DataError, match="counts none"):
        collect_clips({"smic": smic}, PROTOCOLS["casme2-5"])


@pytest.mark.slow
def test_from_folders_to_a_table(casme2, samm, smic, tmp_path):
    from typer.testing import CliRunner

    archive = tmp_path / "composite.npz"
    given = ["mie", "flows", f"casme2={casme2}", f"samm={samm}", f"smic={smic}", "--out", str(archive)]
    result = CliRunner().invoke(app, [*given, "--flow", "farneback", "--format", "json"])
    assert result.exit_code == 1, result.output  # one clip has no frames
    report = json.loads(result.stdout)
    assert [one["clip"] for one in report["failed"]] == ["casme2/sub03/EP09_09"]
    assert report["searched"] == 4
    samples = load_flow_archive(archive)
    assert len(samples) == 7
    assert samples.classes == PROTOCOLS["megc2019"].classes
    assert set(samples.dataset.tolist()) == {"casme2", "samm", "smic"}
    emotions, units = load_annotations(archive, n=7)
    assert (emotions[0], units[0]) == ("happiness", "12")
    with np.load(io.BytesIO(archive.read_bytes())) as content:
        # The strongest frame of made clips is the last but one; found without coding to within one frame.
        assert [abs(int(a) - 559744) <= 1 for a in content["apex"][samples.dataset == "smic"]] == [True] * 3
    # The mouth moves vertically, the brows do not: channel v differs most from its own median at the mouth.
    v = np.abs(samples.flow[..., 1].astype(float) - np.median(samples.flow[..., 1], axis=(1, 2), keepdims=True))
    assert (v[:, 18:25, 8:20].mean(axis=(1, 2)) > 2 * v[:, 2:8].mean(axis=(1, 2))).all()
    shown = ["mie", "eval", "--flow-archive", str(archive), "--model", "kernel", "--workers", "1", "--format", "json"]
    table = CliRunner().invoke(app, shown)
    assert table.exit_code == 0, table.output
    assert json.loads(table.stdout)["n"] == 7


def test_mistakes_of_the_command(tmp_path):
    from typer.testing import CliRunner

    for more, said in ((["casme2"], "names no folder"), (["casme2=x", "--protocol", "megc"], "megc2019")):
        result = CliRunner().invoke(app, ["mie", "flows", *more, "--out", str(tmp_path / "a.npz")])
        assert result.exit_code == 2
        assert said in result.output
