import json

import numpy as np
import pytest
from typer.testing import CliRunner

from vlfer.cli.main import app
from vlfer.micro.samples import SIDE, FlowSamples, save_archive

run = CliRunner().invoke


@pytest.fixture
def archive(tmp_path):
    rng = np.random.default_rng(0)
    label = np.tile(np.arange(3), 8)
    flow = rng.integers(100, 156, (24, SIDE, SIDE, 3))
    flow[label == 1, 20:26] += 80
    flow[label == 2, 2:8] -= 80
    samples = FlowSamples(
        flow=flow.astype(np.uint8), label=label.astype(np.int64), dataset=np.repeat(["one", "two"], 12),
        subject=np.repeat(["s1", "s2", "s1", "s2"], 6), clip=np.arange(24).astype(str),
        classes=("negative", "positive", "surprise"),
    )  # fmt: skip
    save_archive(samples, tmp_path / "flow.npz")
    return tmp_path / "flow.npz"


def _eval(archive, *more: str):
    return run(app, ["mie", "eval", "--flow-archive", str(archive), "--workers", "1", *more])


def test_eval_prints_and_writes_the_report(archive, tmp_path) -> None:
    result = _eval(archive, "--out", str(tmp_path / "run"), "--format", "json", "--seeds", "2")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert json.loads(result.stdout) == report
    assert report["uf1"] == report["uar"] == 1
    assert report["n"] == 24
    assert report["subjects"] == 4
    assert set(report["parts"]) == {"one", "two"}
    assert report["seeds"] == [0, 1]
    assert len((tmp_path / "run" / "predictions.csv").read_text().splitlines()) == 1 + 2 * 24
    assert len(list((tmp_path / "run" / "folds").rglob("*.npz"))) == 8
    assert "| Full | 24 | 1.000" in (tmp_path / "run" / "report.md").read_text()


def test_eval_as_table(archive) -> None:
    result = _eval(archive, "--model", "svm")
    assert result.exit_code == 0
    assert "| two | 12 |" in result.stdout


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--model", "vlferr"], 2, "Did you mean 'vlfer'"),
        (["--protocol", "megc2020"], 2, "Did you mean 'megc2019'"),
        (["--protocol", "samm-5"], 2, "samm-5 is over happiness"),
        (["--seeds", "0"], 2, ""),
    ],
)
def test_eval_usage(archive, more, code, said) -> None:
    result = _eval(archive, *more)
    assert result.exit_code == code
    assert said in result.output


def test_eval_without_the_archive(tmp_path) -> None:
    result = _eval(tmp_path / "none.npz")
    assert result.exit_code == 2
    assert "no flow archive" in result.output


def test_recognize_needs_a_clip_or_both_images() -> None:
    result = run(app, ["mie", "recognize", "--onset", "a.png"])
    assert result.exit_code == 2
    assert "--apex B.png" in result.output
