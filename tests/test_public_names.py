"""What ``import vlfer`` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vlfer

HEAVY = ("torch", "transformers", "open_clip", "cv2", "mediapipe", "matplotlib")


@pytest.mark.parametrize("name", vlfer.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(vlfer, name).__name__ == name
    assert name in dir(vlfer)


def test_there_are_few() -> None:
    assert len(vlfer.__all__) <= 12
    assert set(vlfer.__all__) == set(vlfer._HOMES)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        vlfer.no_such_name  # noqa: B018


def test_import_loads_nothing_heavy() -> None:
    code = f"import sys, vlfer, vlfer.types; sys.exit(', '.join(set({HEAVY!r}) & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
