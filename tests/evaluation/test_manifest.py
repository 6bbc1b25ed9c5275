"""Reading manifests: what is understood, and what each mistake says."""

from pathlib import Path

import pytest

from vlfer.errors import DataError
from vlfer.evaluation.manifest import Manifest, Row, load_manifest, save_manifest
from vlfer.types import Label, LabelSet

LABELS = LabelSet((Label("happiness", aliases=("happy",)), Label("sadness", aliases=("sad",))), name="two")


def write(tmp_path: Path, text: str, name: str = "m.csv", encoding: str = "utf-8") -> Path:
    file = tmp_path / name
    file.write_text(text, encoding=encoding)
    return file


def test_minimal_and_full(tmp_path):
    small = load_manifest(write(tmp_path, "path,label\na.png,happy\n"))
    assert small.rows == (Row(str(tmp_path / "a.png"), "happy"),)
    text = "label,path,fold,subject,start_s,end_s,split,box,note\nsad,v.mp4,2,s1,0.5,2,test,1 2 30 40,x\n"
    full = load_manifest(write(tmp_path, text))
    assert full.rows[0] == Row(str(tmp_path / "v.mp4"), "sad", "2", "s1", 0.5, 2.0, "test", (1.0, 2.0, 30.0, 40.0))
    assert "note" in full.notes[0]


def test_root_replaces_the_folder_of_the_manifest_and_absolute_paths_stay(tmp_path):
    root = tmp_path / "media"
    root.mkdir()
    file = write(tmp_path, f"path,label\na.png,happy\n{tmp_path}/b.png,sad\n")
    assert [r.path for r in load_manifest(file, root=root).rows] == [str(root / "a.png"), str(tmp_path / "b.png")]
    with pytest.raises(DataError, match="nowhere"):
        load_manifest(file, root=tmp_path / "nowhere")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_crlf_and_byte_order_mark(tmp_path, separator):
    text = f"Path{separator}Label\r\na.png{separator}happy\r\n\r\n"
    assert load_manifest(write(tmp_path, text, encoding="utf-8-sig")).rows[0].label == "happy"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty"]),
        ("path,label\n", ["header and no rows"]),
        ("path,lable\na,b\n", ["lacks the column 'label'", "Did you mean 'lable'"]),
        ("file,emotion\na,b\n", ["'path' and 'label'", "file, emotion"]),
        ("path,label\na.png,\n,happy\n", ["line 2: the label is empty", "line 3: the path is empty"]),
        ("path,label\na.png,happy\nb.png,sad\na.png,sad\n", ["line 4 labels", "'sad'", "line 2 'happy'"]),
        ("a.png,happy\nb.png,sad\n", ["looks like a row"]),
        ("path,label,start_s\na.mp4,happy,two\n", ["line 2", "'two'"]),
        ("path,label,start_s,end_s\na.mp4,happy,3,2\n", ["end_s 2 is not after start_s 3"]),
        ("path,label,box\na.png,happy,1 2 3\n", ["four numbers"]),
        ("path,label,box\na.png,happy,5 5 5 9\n", ["no area"]),
        ("path,label\nb,c.png,happy\n", ["3 cells under 2 columns"]),
    ],
)
def test_mistakes_are_told(tmp_path, text, words):
    with pytest.raises(DataError) as error:
        load_manifest(write(tmp_path, text))
    for word in words:
        assert word in str(error.value)


def test_missing_and_binary_files(tmp_path):
    write(tmp_path, "path,label\na,b\n", name="manifest.csv")
    with pytest.raises(DataError, match=r"Did you mean 'manifest\.csv'"):
        load_manifest(tmp_path / "manifst.csv")
    (tmp_path / "x.csv").write_bytes(b"\xfa\xfe\x00\x81")
    with pytest.raises(DataError, match="cannot be read"):
        load_manifest(tmp_path / "x.csv")


def test_same_file_twice_is_fine_at_other_times_or_in_other_folds(tmp_path):
    text = "path,label,start_s,end_s,fold\nv.mp4,happy,0,1,1\nv.mp4,sad,1,2,1\nv.mp4,happy,0,1,2\n"
    assert len(load_manifest(write(tmp_path, text))) == 3


def test_labels_map_by_name_and_unknown_ones_show_the_counts():
    rows = tuple(Row(f"{i}.png", label) for i, label in enumerate(["Happy", "sad", "awe", "awe"]))
    assert Manifest(rows[:2]).label_indices(LABELS).tolist() == [0, 1]
    with pytest.raises(DataError) as error:
        Manifest(rows).label_indices(LABELS)
    assert "2 of 4 rows" in str(error.value)
    assert "awe 2" in str(error.value)
    assert "Happy 1" in str(error.value)


def test_own_words_for_common_classes_are_understood_unless_two_mean_the_same():
    rows = Manifest(tuple(Row(f"{i}.png", label) for i, label in enumerate(["happiness", "sad", "fear"])))
    words = LabelSet((Label("terrified"), Label("joyful"), Label("unhappy")), name="own")
    assert rows.label_indices(words).tolist() == [1, 2, 0]
    doubled = LabelSet((Label("joyful"), Label("cheerful"), Label("unhappy"), Label("scared")), name="own")
    with pytest.raises(DataError, match=r"happiness 1.*'joyful' and 'cheerful' mean 'happiness' alike"):
        rows.label_indices(doubled)


def test_folds_sort_by_number_and_selection_is_checked():
    rows = tuple(Row(f"{i}.png", "sad", fold=str(i), split="test") for i in (10, 2, 1))
    manifest = Manifest(rows)
    assert manifest.folds == ("1", "2", "10")
    assert manifest.select(fold="2").rows == (rows[1],)
    with pytest.raises(DataError, match="has 1, 2, 10"):
        manifest.select(fold="7")
    with pytest.raises(DataError, match="It has test"):
        manifest.select(split="val")


def test_round_trip(tmp_path):
    rows = (Row("/x/a,b.mp4", "happy", "1", "s", 0.1, 2.5, "test", (0.5, 1.0, 2.0, 3.0)), Row("/x/c.png", "sad"))
    save_manifest(Manifest(rows), tmp_path / "out.csv")
    back = load_manifest(tmp_path / "out.csv")
    assert back.rows == rows
    assert back.sha256 == Manifest(rows).sha256


def test_two_labels_of_one_sample_are_refused_in_memory_too():
    with pytest.raises(DataError, match="two labels"):
        Manifest((Row("a", "x"), Row("a", "y")))


def test_repeated_rows_are_kept_and_told(tmp_path):
    manifest = load_manifest(write(tmp_path, "path,label\na.png,happy\nb.png,sad\na.png,happy\n"))
    assert len(manifest) == 3
    assert manifest.remarks == ("1 rows repeat an earlier one and count again",)


@pytest.mark.parametrize(
    "text",
    [
        'path, label\n"a, b.png", "happy"\n',
        "\r\n\r\npath;label\r\na, b.png ; happy\r\n",
        'path\tlabel\r"a, b.png"\thappy\r',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_spreadsheets_write(tmp_path, text, encoding):
    file = tmp_path / "m.csv"
    file.write_bytes(text.encode(encoding))
    assert load_manifest(file).rows == (Row(str(tmp_path / "a, b.png"), "happy"),)


def test_paths_written_from_the_current_folder_are_found(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"x")
    (tmp_path / "lists").mkdir()
    file = write(tmp_path / "lists", "path,label\ndata/a.png,happy\ndata/b.png,happy\n")
    monkeypatch.chdir(tmp_path)
    manifest = load_manifest(file)
    assert [row.path for row in manifest.rows] == [str(tmp_path / "data" / name) for name in ("a.png", "b.png")]
    assert "current folder" in manifest.notes[0]
    (tmp_path / "lists" / "data").mkdir()
    (tmp_path / "lists" / "data" / "b.png").write_bytes(b"x")
    assert load_manifest(file).rows[0].path == str(tmp_path / "lists" / "data" / "a.png")  # the manifest's own first


def test_backslashes_of_another_system(tmp_path):
    assert load_manifest(write(tmp_path, "path,label\nd\\a.png,happy\n")).rows[0].path == str(tmp_path / "d" / "a.png")
