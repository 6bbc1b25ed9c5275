"""From clips to an archive of faces, from videos to a pre-trained MIACNet, and both in the same harness."""

from __future__ import annotations

import json
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from skimage.data import astronaut
from typer.testing import CliRunner

from vlfer.cli.main import app
from vlfer.micro.face_samples import load_face_archive

run = CliRunner().invoke
PORTRAIT = np.ascontiguousarray(astronaut()[20:260, 100:340])


def _frame(strength: float, *, down: bool) -> np.ndarray:
    """The portrait with its mouth pulled down, or its brows up, by up to ``strength`` pixels."""
    y, x = np.mgrid[0:240, 0:240].astype(np.float32)
    cx, cy = (128, 128) if down else (126, 70)
    pull = strength * np.exp(-(((x - cx) / 30) ** 2 + ((y - cy) / 14) ** 2))
    back = (y + pull if not down else y - pull).astype(np.float32)
    return cv2.remap(PORTRAIT, x, back, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _write(path, *, frames: int, down: bool, fps: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=fps, options={"crf": "12", "preset": "ultrafast"})
        stream.width = stream.height = 240
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        for i in range(frames):
            pixels = _frame(4.0 * np.sin(np.pi * i / (frames - 1)), down=down)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = i
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    for person in ("anna", "bela"):
        _write(root / person / "surprise" / "one.mp4", frames=9, down=False)
        _write(root / person / "negative" / "two.mp4", frames=9, down=True)
    folder = root / "anna" / "positive" / "three"
    folder.mkdir(parents=True)
    for i in range(6):
        cv2.imwrite(str(folder / f"{i + 1}.png"), _frame(i / 2, down=True)[..., ::-1])
    (root / "anna" / "others" / "four").mkdir(parents=True)
    return root


@pytest.fixture(scope="module")
def archive(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("archive") / "faces.npz"
    result = run(app, ["mie", "faces", f"clips={clips}", "--out", str(out), "--side", "32", "--frames", "8"])
    assert result.exit_code == 0, result.output
    assert "5 clips of 2 subjects, 32 px, 8 frames" in result.stdout
    assert "others" in result.stdout
    return out


def test_clips_and_folders_of_frames_become_faces(archive) -> None:
    samples = load_face_archive(archive)
    assert samples.faces.shape == (5, 10, 32, 32, 3)
    assert sorted(set(samples.subject_keys.tolist())) == ["clips/anna", "clips/bela"]
    still = np.abs(samples.faces[:, 0].astype(int) - samples.faces[:, 2]).mean()
    moved = np.abs(samples.faces[:, 0].astype(int) - samples.faces[:, 1]).mean()
    assert still < moved  # the first frame is the onset, the apex differs from it


def test_lbp_top_reads_them_in_the_harness(archive, tmp_path) -> None:
    result = run(app, ["mie", "eval", "--face-archive", str(archive), "--model", "lbp-top", "--workers", "1",
                       "--format", "json"])  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["model"]["name"] == "lbp-top"
    assert report["n"] == 5


def test_pretraining_on_videos_then_fine_tuning(clips, archive, tmp_path) -> None:
    out = tmp_path / "run"
    command = ["mie", "pretrain", str(clips), "--out", str(out), "--side", "32", "--width", "4", "--stride", "8",
               "--condition", "16", "--epochs", "1", "--batch", "4", "--autoencoder-steps", "2",
               "--device", "cpu"]  # fmt: skip
    result = run(app, command)
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)) >= {"reconstruction", "divergence"}
    assert "4 videos" in result.output
    assert {file.name for file in out.iterdir()} >= {"miacnet.safetensors", "miacnet.json", "log.csv", "run.json"}
    assert not list(out.rglob("*.pt"))
    assert not list(out.rglob("*.pkl"))
    again = run(app, command)
    assert again.exit_code == 0, again.output
    assert "Going on at step 10 of 10" in again.output
    other = run(app, [*command, "--rate", "0.1"])
    assert other.exit_code == 2
    assert "other settings" in other.output
    result = run(app, ["mie", "eval", "--face-archive", str(archive), "--model", "miacnet", "--start", str(out),
                       "--workers", "1", "--folds", "2", "--format", "json"])  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert len(report["model"]["settings"]["start"]) == 64


def test_a_folder_without_videos_is_told(tmp_path) -> None:
    result = run(app, ["mie", "pretrain", str(tmp_path), "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert "no video" in result.output


def test_eval_wants_one_archive(archive) -> None:
    assert "No archive" in run(app, ["mie", "eval"]).output
    both = run(app, ["mie", "eval", "--face-archive", str(archive), "--flow-archive", "x.npz"])
    assert both.exit_code == 2
    assert "Two archives" in both.output
