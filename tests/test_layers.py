"""The shape of the code: what imports what, how long files are, what a light import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "vlfer").rglob("*.py"))
HEAVY = ("torch", "torchvision", "open_clip", "transformers", "cv2", "mediapipe", "matplotlib", "numpy")


def modules_after(statement):
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_dependencies_point_downwards():
    # In a process of its own: import-linter switches off the loggers that exist when it starts.
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("statement", ["import vlfer", "import vlfer.cli.main"])
def test_light_imports_stay_light(statement):
    assert not modules_after(statement) & set(HEAVY)


def test_every_public_name_can_be_had():
    import vlfer

    assert len(vlfer.__all__) <= 12
    for name in vlfer.__all__:
        assert getattr(vlfer, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        vlfer.nonsense  # noqa: B018


def test_files_are_short_enough_to_read():
    long = {str(path.relative_to(ROOT)): n for path in SOURCES if (n := len(path.read_text().splitlines())) > 420}
    assert not long


def test_the_pipeline_is_wiring_only():
    assert len((ROOT / "vlfer" / "pipeline.py").read_text().splitlines()) <= 250


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_neither_prints_nor_asserts(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), f"assert in line {node.lineno}"
        called = node.func if isinstance(node, ast.Call) else None
        assert not (isinstance(called, ast.Name) and called.id == "print"), f"print in line {node.lineno}"
