from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlfer.cli.exits import INTERRUPTED
from vlfer.cli.main import app


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("command", "work"),
    [
        (("train-backbone", "configs/bundled.yaml"), "vlfer.training.backbone.train_backbone"),
        (("eval", "manifest", "--manifest", "none.csv"), "vlfer.cli.eval._measure"),
    ],
)
def test_ctrl_c_says_that_the_same_command_goes_on(
    command: tuple[str, ...], work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, stop)
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "run")])
    assert result.exit_code == INTERRUPTED
    assert "The same command goes on from there." in result.stderr
