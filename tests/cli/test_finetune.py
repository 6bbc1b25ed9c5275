"""`vlfer finetune`: from folders and tables to an adapter that predict takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlfer.cli.finetune_data import read_samples, split_manifest
from vlfer.errors import ConfigError, DataError
from vlfer.evaluation.manifest import Manifest, Row
from vlfer.training.finetune_config import DataSection, FinetuneConfig


def draw(path: Path, shade: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 60, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise + np.uint8(shade)).save(path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    root = tmp_path / "faces"
    for shade, name in ((0, "dark mood"), (190, "bright mood")):
        for i in range(6):
            draw(root / name / f"{i}.png", shade, seed=shade + i)
    return root


def settings(**content: Any) -> FinetuneConfig:
    return FinetuneConfig.model_validate(content)


def read(tmp_path: Path, **content: Any) -> Any:
    return read_samples(settings(**content), image_size=32, folder=tmp_path / "run")


@pytest.fixture
def config_file(tmp_path: Path, tiny_backbone_name: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(
        f"name: moods\nbackbone: '{tiny_backbone_name}'\ndevice: cpu\ndata: {{faces: whole, validation: 0.3}}\n"
        "loop: {epochs: 2, steps_per_epoch: 3, batch_size: 6, learning_rate: 0.02}\n"
    )
    return path


def test_class_folders_become_an_adapter_that_predict_takes(
    run: Any, tmp_path: Path, folders: Path, config_file: Path, tiny_backbone_name: str
) -> None:
    (folders / "dark mood" / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "run"
    result = run("finetune", config_file, "--set", f"data.root={folders}", "--out", out, "--format", "json")
    assert result.exit_code == 0, result.stderr
    assert "Skipped 1 samples" in result.stderr
    assert "broken.png" in result.stderr
    assert set(json.loads(result.stdout)["figures"]) == {"validation"}
    card = json.loads((out / "adapter" / "vlfer_adapter.json").read_text())
    assert card["data"]["skipped"] == 1
    picture = folders / "bright mood" / "0.png"
    answer = run(
        "predict", picture, "--backbone", tiny_backbone_name, "--adapter", out / "adapter", "--faces", "whole",
        "--device", "cpu", "--format", "json",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.stderr
    assert "bright mood" in answer.stdout
    other = run("predict", picture, "--adapter", out / "adapter", "--faces", "whole", "--device", "cpu")
    assert other.exit_code != 0
    assert "was made for the backbone" in other.stderr


def test_a_typo_is_suggested_before_anything_is_loaded(run: Any, config_file: Path) -> None:
    result = run("finetune", config_file, "--set", "loop.epocs=3")
    assert result.exit_code == 2
    assert "loop.epochs" in result.stderr
    assert run("finetune", config_file, "--dry-run", "--set", "seed=5").stdout.count('"seed": 5') == 1


def test_no_data_is_told(run: Any, config_file: Path) -> None:
    result = run("finetune", config_file)
    assert result.exit_code == 2
    assert "--set data.root=FOLDER" in result.stderr


def test_one_class_only_is_refused(run: Any, config_file: Path, folders: Path, tmp_path: Path) -> None:
    import shutil

    shutil.rmtree(folders / "bright mood")
    result = run("finetune", config_file, "--set", f"data.root={folders}", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "1 class: dark mood" in result.stderr


def test_labels_that_differ_in_case_and_spaces_are_one(tmp_path: Path) -> None:
    lines = ["path,label,subject,caption,votes_joy,votes_grief"]
    for i, label in enumerate(("Joy", " joy ", "GRIEF", "grief", "grief")):
        draw(tmp_path / f"{i}.png", 40 * i, seed=i)
        lines.append(f"{i}.png,{label},p{i},a face of {label.strip()},{3 - i if i < 3 else 0},{i}")
    manifest = tmp_path / "m.csv"
    manifest.write_text("\n".join(lines))
    data = {"manifest": manifest, "faces": "whole"}
    samples, test = read(tmp_path, data=data)
    assert test is None
    assert samples.counts == {"grief": 3, "Joy": 2}
    assert samples.subjects == ("p0", "p1", "p2", "p3", "p4")
    voted, _ = read(tmp_path, data=data, objective={"kind": "votes"})
    assert voted.votes[1].tolist() == pytest.approx([1 / 3, 2 / 3])  # grief, joy
    told, _ = read(tmp_path, data=data, objective={"kind": "captions"})
    assert told.captions[2] == "a face of GRIEF"
    manifest.write_text("\n".join(line.rsplit(",", 3)[0] for line in lines))
    with pytest.raises(DataError, match="no votes for grief, Joy"):
        read(tmp_path, data=data, objective={"kind": "votes"})
    with pytest.raises(DataError, match="column caption"):
        read(tmp_path, data=data, objective={"kind": "captions"})


def test_clips_are_padded_and_keep_their_length(tmp_path: Path) -> None:
    root = tmp_path / "clips"
    for name, count in (("short", 3), ("long", 9)):
        for i in range(count):
            draw(root / name / "c1" / f"{i}.png", 20 * i, seed=i)
            draw(root / name / "c2" / f"{i}.png", 10 * i, seed=i)
    samples, _ = read(tmp_path, input="videos", data={"root": root, "faces": "whole", "frames": 6})
    assert samples.pixels.shape == (4, 6, 32, 32, 3)
    assert sorted(samples.lengths.tolist()) == [3, 3, 6, 6]


def test_folds_and_splits_are_kept_apart() -> None:
    rows = tuple(Row(f"{i}.png", "ab"[i % 2], fold=str(i % 3)) for i in range(12))
    train, test = split_manifest(Manifest(rows), DataSection(root=Path("x"), fold="1"))
    assert test is not None
    assert {r.fold for r in test.rows} == {"1"}
    assert {r.fold for r in train.rows} == {"0", "2"}
    rows = tuple(Row(f"{i}.png", "ab"[i % 2], split="train" if i < 8 else "test") for i in range(12))
    train, test = split_manifest(Manifest(rows), DataSection(root=Path("x")))
    assert test is not None
    assert (len(train), len(test)) == (8, 4)
    assert split_manifest(Manifest(rows), DataSection(root=Path("x"), test="none"))[1] is None


def test_subjects_in_training_and_test_are_named(run: Any, tmp_path: Path, folders: Path, config_file: Path) -> None:
    files = sorted(folders.rglob("*.png"))
    lines = ["path,label,subject,split"]
    for i, file in enumerate(files):
        lines.append(f"{file},{file.parent.name},anna{i % 3},{'test' if i % 4 == 0 else 'train'}")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    result = run("finetune", config_file, "--set", f"data.manifest={tmp_path / 'm.csv'}", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "3 subjects are in training and in test: anna0, anna1, anna2" in result.stderr


def test_folders_that_hold_nothing_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        read(tmp_path, data={"root": tmp_path / "empty"})
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path, data={"root": tmp_path / "nowhere"})
    (tmp_path / "bad" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "a" / "1.png").write_bytes(b"x")
    with pytest.raises(DataError, match="None of the 1 samples"):
        read(tmp_path, data={"root": tmp_path / "bad", "faces": "whole"})
    with pytest.raises(ConfigError, match="archive is not given"):
        read(tmp_path, input="flow", data={"root": tmp_path})


def test_flow_is_adapted_and_read_by_mie(run: Any, tmp_path: Path) -> None:
    """Onset-to-apex flow of made people; the shipped encoder learns, and the result is one of its kind."""
    from vlfer.config import resource_dir
    from vlfer.micro.samples import FlowSamples, save_archive
    from vlfer.models.flow_encoder import CARD_NAME
    from vlfer.training.mie_align import made_motion

    rng = np.random.default_rng(0)
    flow = np.stack([made_motion(rng)[0] for _ in range(24)])
    flow[::2, :, :, 1] = 255 - flow[::2, :, :, 1]
    names = np.array([f"s{i // 4}" for i in range(24)])
    save_archive(
        FlowSamples(
            flow=flow, label=np.arange(24) % 2, dataset=np.array(["made"] * 12 + ["other"] * 12), subject=names,
            clip=np.array([f"c{i}" for i in range(24)]), classes=("positive", "negative"),
        ), tmp_path / "flow.npz",
    )  # fmt: skip
    out = tmp_path / "run"
    result = run(
        "finetune", resource_dir("configs") / "mie_flow_lora.yaml", "--set", f"data.archive={tmp_path / 'flow.npz'}",
        "--set", "data.fold=other", "--set", "loop.epochs=2", "--set", "device=cpu", "--out", out, "--format", "json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["figures"]["test"]["after"]["n"] == 12
    card = json.loads((out / "adapter" / CARD_NAME).read_text())
    assert card["kind"] == "mie-flow"
    assert card["data"]["kept_apart_by"] == "subjects"
    assert run("adapters", "verify", out / "adapter", "--backbone", "bundled").exit_code == 0


def test_many_crops_go_to_disk_and_are_found_again(
    tmp_path: Path, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlfer.cli import finetune_data

    in_memory, _ = read(tmp_path, data={"root": folders, "faces": "whole"})
    monkeypatch.setattr(finetune_data, "_IN_MEMORY_BYTES", 0)
    stored, _ = read(tmp_path, data={"root": folders, "faces": "whole"})
    monkeypatch.setattr(finetune_data, "_crops", None)  # nothing is read a second time
    monkeypatch.setenv("RANK", "1")
    again, _ = read(tmp_path, data={"root": folders, "faces": "whole"})
    for samples in (stored, again):
        assert np.array_equal(samples.pixels, in_memory.pixels)
        assert samples.sha256 == in_memory.sha256
