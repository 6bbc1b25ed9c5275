"""Every loader against a fake copy in the official layout."""

import numpy as np
import pytest

from vlfer.errors import DataError
from vlfer.evaluation.datasets import DATASETS, check_dataset, find_dataset, load_dataset
from vlfer.evaluation.datasets.clips import read_mafw_list
from vlfer.evaluation.datasets.ferplus import majority
from vlfer.evaluation.manifest import load_manifest, save_manifest
from vlfer.evaluation.media import frame_files, media_file, read_frames
from vlfer.text.labels import load_label_set


@pytest.mark.parametrize("name", DATASETS)
def test_official_layout(fake, tmp_path, name):
    manifest = load_dataset(name, fake.MAKERS[name](tmp_path))
    truth = manifest.label_indices(load_label_set(DATASETS[name].labels))  # every label means a class, by name
    assert len(np.unique(truth)) >= 3
    for row in (manifest.rows[0], manifest.rows[-1]):
        assert media_file(row).is_absolute()
        assert len(read_frames(row, sampling="uniform", count=2)) >= 1
    save_manifest(manifest, tmp_path / "out.csv")
    assert load_manifest(tmp_path / "out.csv").rows == manifest.rows


@pytest.mark.parametrize("name", DATASETS)
def test_wrong_root_says_what_was_looked_for_and_found(tmp_path, name):
    (tmp_path / "holiday.txt").write_text("x")
    with pytest.raises(DataError) as error:
        load_dataset(name, tmp_path)
    assert "ooked for" in str(error.value)
    assert "holiday.txt" in str(error.value)
    with pytest.raises(DataError, match="not a folder"):
        load_dataset(name, tmp_path / "nowhere")


def test_every_dataset_has_a_fake(fake):
    assert set(fake.MAKERS) == set(DATASETS)


@pytest.mark.parametrize("media", ["frames", "video"])
@pytest.mark.parametrize(("base", "renamed"), [(1, False), (0, True)])
def test_dfew_in_both_bases(fake, tmp_path, base, renamed, media):
    manifest = load_dataset("dfew", fake.dfew(tmp_path, base=base, renamed=renamed, media=media))
    assert manifest.folds == ("1", "2", "3", "4", "5")
    assert len(manifest) == 14
    assert manifest.label_counts == dict.fromkeys(fake.DFEW_CLASSES, 2)
    assert f"{base}..{base + 6}" in manifest.notes[0]
    by_clip = {int(media_file(row).stem): row.label for row in manifest.rows}
    assert by_clip[1] == "happiness"
    assert by_clip[7] == "fear"
    assert all(media_file(row).exists() for row in manifest.rows)


def test_dfew_with_an_impossible_label_shows_counts(fake, tmp_path):
    root = fake.dfew(tmp_path)
    file = root / "EmoLabel_DataSplit" / "test(single-labeled)" / "set_1.csv"
    file.write_text(file.read_text() + "900,8\n")
    with pytest.raises(DataError, match=r"\[8\].*8: 1"):
        load_dataset("dfew", root)
    file.write_text("video_name,label\nabc\n")
    with pytest.raises(DataError, match="Line 2"):
        load_dataset("dfew", root)


@pytest.mark.parametrize("captions", [False, True])
@pytest.mark.parametrize("prefix", ["Train & Test Set", "", "a/b"])
def test_mafw_variants_agree(fake, tmp_path, captions, prefix):
    manifest = load_dataset("mafw", fake.mafw(tmp_path, captions=captions, prefix=prefix))
    assert len(manifest) == 14
    assert len(manifest.folds) == 5
    assert manifest.rows[0].label == "anger"


def test_mafw_captions_are_gb18030(fake, tmp_path):
    root = fake.mafw(tmp_path, captions=True)
    file = root / "Train & Test Set" / "single" / "with_caption" / "set_1" / "test.txt"
    assert "皱".encode("gb18030") in file.read_bytes()
    assert read_mafw_list(file)[0] == ("00001.mp4", "anger", "A person frowns.")
    file.write_bytes(b"00001.mp4 3\r\n")
    with pytest.raises(DataError, match="name of a class"):
        read_mafw_list(file)


def test_ferplus_rule():
    assert majority([8, 1, 1, 0, 0, 0, 0, 0, 0, 0]) == "neutral"
    assert majority([5, 5, 0, 0, 0, 0, 0, 0, 0, 0]) is None  # a tie is no majority
    assert majority([4, 2, 2, 1, 1, 0, 0, 0, 0, 0]) is None  # 4 of the 8 that are left is not more than half
    assert majority([3, 1, 1, 1, 1, 1, 1, 1, 0, 0]) == "neutral"  # single votes are slips
    assert majority([1] * 10) is None
    assert majority([0, 0, 0, 0, 0, 0, 0, 0, 9, 1]) is None
    assert majority([0, 0, 0, 0, 0, 0, 0, 0, 0, 10]) is None


def test_ferplus_from_table_and_from_folders_agree(fake, tmp_path):
    table = load_dataset("ferplus", fake.ferplus(tmp_path / "a"))
    folders = load_dataset("ferplus", fake.ferplus(tmp_path / "b", images="folders"))
    assert [r.label for r in table.rows] == [r.label for r in folders.rows]
    assert [r.split for r in table.rows] == [r.split for r in folders.rows]
    assert len(table) == 16
    assert "2 pictures" in table.notes[0]
    assert table.rows[9].path.endswith("fer2013.csv#9")


def test_fer2013_pixels_are_those_of_the_row(fake, tmp_path):
    manifest = load_dataset("fer2013", fake.fer2013(tmp_path))
    frame = read_frames(manifest.rows[4], sampling="uniform", count=1)
    assert frame.pixels.shape == (1, 48, 48, 3)
    assert frame.pixels[0, 0, 0].tolist() == [130] * 3
    assert frame.pixels[0, -1, -1].tolist() == [4] * 3
    assert (manifest.rows[4].label, manifest.rows[4].split) == ("sadness", "train")
    assert manifest.splits == ("test", "train", "val")


def test_fer2013_class_folders(fake, tmp_path):
    root = fake.class_folders(tmp_path, ("train", "test"), names=[c.lower() for c in fake.CAPITALS])
    assert len(load_dataset("fer2013", root)) == 14


def test_affectnet_variants(fake, tmp_path):
    for make in (fake.affectnet, fake.affectnet_csv):
        root = make(tmp_path / make.__name__)
        eight, seven = load_dataset("affectnet8", root), load_dataset("affectnet7", root)
        assert (len(eight), len(seven)) == (8, 7)
        assert "contempt" not in seven.label_counts
        assert eight.rows[1].label == "happiness"
        assert media_file(eight.rows[1]).exists()


def test_rafdb_numbered_folders(fake, tmp_path):
    root = fake.class_folders(tmp_path, ("train", "test"), names=[str(i) for i in range(1, 8)])
    manifest = load_dataset("rafdb", root)
    assert manifest.rows[0].label == "surprise"
    assert len(manifest) == 14
    (root / "train" / "9").mkdir()
    fake.picture(root / "train" / "9" / "x.png", 1)
    with pytest.raises(DataError, match=r"\[9\]"):
        load_dataset("rafdb", root)


def test_subjects(fake, tmp_path):
    assert load_dataset("jaffe", fake.jaffe(tmp_path / "j")).subjects == ("KA", "KL")
    assert load_dataset("kdef", fake.kdef(tmp_path / "k")).subjects == ("F01", "M02")
    peaks = load_dataset("ckplus", fake.ckplus(tmp_path / "c"))
    assert peaks.rows[0].subject == "S005"
    assert peaks.rows[0].path.endswith("S005_001_00000003.png")
    assert len(peaks) == 7


def test_ckplus_class_folders(fake, tmp_path):
    fake.picture(tmp_path / "contempt" / "S138_008_00000009.png", 1)
    row = load_dataset("ckplus", tmp_path).rows[0]
    assert (row.label, row.subject) == ("contempt", "S138")


def test_expw_rows_carry_boxes(fake, tmp_path):
    manifest = load_dataset("expw", fake.expw(tmp_path))
    assert len(manifest) == 14
    assert manifest.rows[1].box == (32.0, 2.0, 58.0, 28.0)


@pytest.mark.parametrize(
    ("name", "maker", "file"),
    [
        ("affectnet8", "affectnet_csv", "validation.csv"),
        ("fer2013", "fer2013", "fer2013.csv"),
        ("ferplus", "ferplus", "fer2013new.csv"),
    ],
)
def test_a_list_that_is_no_text_is_told(fake, tmp_path, name, maker, file):
    """A spreadsheet program saves CSV as UTF-16; and a copy may be damaged."""
    root = getattr(fake, maker)(tmp_path)
    (root / file).write_bytes((root / file).read_text().encode("utf-16"))
    with pytest.raises(DataError, match=f"{file}.* cannot be read.*UTF-8"):
        load_dataset(name, root)


@pytest.mark.parametrize("content", [b"", b"3", b"\x93NUMPY"])
def test_an_affectnet_annotation_that_is_broken_is_told(fake, tmp_path, content):
    root = fake.affectnet(tmp_path)
    (root / "val_set" / "annotations" / "3_exp.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"3_exp.npy' is broken"):
        load_dataset("affectnet8", root)


def test_names_are_forgiving_and_unknown_ones_are_told():
    assert find_dataset("RAF-DB compound").name == "rafdb-compound"
    assert find_dataset("CAER_S").name == "caer-s"
    assert find_dataset("CK+").name == "ckplus"
    assert find_dataset("fer+").name == "ferplus"
    with pytest.raises(DataError, match="Did you mean 'dfew'"):
        find_dataset("dfeww")


def test_check_compares_counts_and_finds_missing_media(fake, tmp_path):
    root = fake.dfew(tmp_path, media="video")
    result = check_dataset("dfew", root)
    assert result.counts["all"] == (11697, 14)
    assert result.counts["fold 1"] == (2341, 3)
    assert result.missing == ()
    assert not result.is_complete
    (root / "Clip" / "original" / "3.mp4").unlink()
    assert check_dataset("dfew", root).missing == (str(root / "Clip" / "original" / "3.mp4"),)


def test_every_dataset_says_how_well_its_figures_are_known():
    for dataset in DATASETS.values():
        if dataset.name != "folders":
            assert dataset.verified or dataset.unverified, dataset.name
        assert dataset.published or "count" in dataset.unverified or dataset.name == "folders"


def test_capitals_of_folder_names_make_no_difference(fake, tmp_path):
    root = fake.mafw(tmp_path)
    (root / "Train & Test Set" / "single").rename(root / "Train & Test Set" / "Single")
    assert len(load_dataset("mafw", root)) == 14


def test_missing_fold_lists_are_told(fake, tmp_path):
    root = fake.dfew(tmp_path / "d")
    (root / "EmoLabel_DataSplit" / "test(single-labeled)" / "set_4.csv").unlink()
    assert "fold 4" in load_dataset("dfew", root).notes[-1]
    root = fake.mafw(tmp_path / "m")
    (root / "Train & Test Set" / "single" / "no_caption" / "set_2" / "test.txt").unlink()
    assert "fold 2" in load_dataset("mafw", root).notes[-1]


@pytest.mark.parametrize(
    ("name", "maker", "part", "tested"),
    [
        ("afew", "afew", "Val_AFEW", "val"),
        ("caer", "caer", "test", "test"),
        ("caer-s", "caer_s", "CAER-S/test", "test"),
        ("sfew", "sfew", "Val", "val"),
    ],
)
def test_a_missing_test_part_is_told(fake, tmp_path, name, maker, part, tested):
    """Figures over the training part look like those of the paper, and are not."""
    root = getattr(fake, maker)(tmp_path)
    assert load_dataset(name, root).notes == ()
    (root / part).rename(tmp_path / "elsewhere")
    assert f"no part '{tested}', only train" in load_dataset(name, root).notes[-1]


def test_a_missing_test_part_of_images_is_told(fake, tmp_path):
    root = fake.rafdb(tmp_path / "r")
    file = root / "basic" / "EmoLabel" / "list_patition_label.txt"
    file.write_text("".join(line for line in file.open() if line.startswith("train")))
    assert "no part 'test'" in load_dataset("rafdb", root).notes[-1]
    root = fake.affectnet(tmp_path / "a")
    (root / "val_set").rename(root / "train_set")
    assert "no part 'val'" in load_dataset("affectnet7", root).notes[-1]
    root = fake.class_folders(tmp_path / "n", ("train",), names=[str(i) for i in range(1, 8)])
    assert "no part 'test'" in load_dataset("rafdb", root).notes[-1]
    assert "no part 'val'" in load_dataset("affectnet8", root).notes[-1]
    root = fake.ferplus(tmp_path / "f", images="folders")
    (root / "FER2013Test").rename(tmp_path / "elsewhere")
    assert "no part 'test'" in load_dataset("ferplus", root).notes[-1]


def test_mafw_lists_with_folders_before_the_file(fake, tmp_path):
    root = fake.mafw(tmp_path)
    file = root / "Train & Test Set" / "single" / "no_caption" / "set_1" / "test.txt"
    file.write_bytes(file.read_bytes().replace(b"00001.mp4", b"data/clips/00001.mp4"))
    assert media_file(load_dataset("mafw", root).rows[0]).is_file()


def test_ferv39k_scenes_with_spaces(fake, tmp_path):
    root = fake.ferv39k(tmp_path)
    file = root / "4_setups" / "All_scenes" / "test_All.csv"
    file.write_text(file.read_text().replace("Action/", "Daily Life/"))
    (root / "2_ClipsforFaceCrop" / "Action").rename(root / "2_ClipsforFaceCrop" / "Daily Life")
    rows = [row for row in load_dataset("ferv39k", root).rows if row.split == "test"]
    assert all(media_file(row).is_dir() for row in rows)
    file.write_text("Action/Happy/0015 3\n")
    with pytest.raises(DataError, match="Line 1"):
        load_dataset("ferv39k", root)


def test_fer2013_table_of_the_later_release(fake, tmp_path):
    root = fake.fer2013(tmp_path)
    lines = [line.split(",") for line in (root / "fer2013.csv").read_text().splitlines()[1:]]
    later = ["emotion, Usage, pixels", *(f"{emotion},{usage},{pixels}" for emotion, pixels, usage in lines)]
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "icml_face_data.csv").write_text("\n".join(later) + "\n")
    first, second = load_dataset("fer2013", root), load_dataset("fer2013", tmp_path / "later")
    assert [(r.label, r.split) for r in first.rows] == [(r.label, r.split) for r in second.rows]
    frames = [read_frames(m.rows[9], sampling="uniform", count=1).pixels for m in (first, second)]
    assert np.array_equal(*frames)


@pytest.mark.parametrize("names", [("Train/Train_Aligned_Faces", "Val/Val_Aligned_Faces"), ("train", "val")])
def test_sfew_variants(fake, tmp_path, names):
    root = fake.class_folders(tmp_path, names)
    (root / names[0].partition("/")[0] / "Train_Aligned_Faces.zip").write_bytes(b"PK")
    manifest = load_dataset("sfew", root)
    assert manifest.splits == ("train", "val")
    assert len(manifest) == 14


def test_debris_of_archivers_is_no_class_and_no_sample(fake, tmp_path):
    root = fake.class_folders(tmp_path, ("train", "test"))
    fake.picture(root / "train" / "__MACOSX" / "a.png", 1)
    (root / "train" / "Happy" / "._000.png").write_bytes(b"x")
    assert len(load_dataset("folders", root)) == 14
    clip = fake.frame_folder(tmp_path / "clip", 2)
    (clip / "._1.jpg").write_bytes(b"x")
    assert len(frame_files(clip)) == 3
