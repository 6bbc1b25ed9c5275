import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "cv2", "mediapipe", "transformers", "matplotlib")


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["doctor", "--help"], ["labels", "-h"], []])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom vlfer.cli.main import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Usage" in done.stdout + done.stderr
    assert "HEAVY []" in done.stderr


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="CPU time of one child is known on POSIX only")
def test_help_is_quick():
    assert min(_cpu_seconds() for _ in range(3)) < 0.5  # CPU time, since a busy machine is no fault of the program


def _cpu_seconds():
    process = subprocess.Popen([sys.executable, "-m", "vlfer.cli", "--help"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def test_the_help_of_predict_is_honest(run):
    told = " ".join(run("predict", "--help").stdout.split())
    assert "PERCEIVED expression, not the felt emotion" in told
    assert "relative to the labels given" in told
    assert "consent" in told


def test_the_version_is_printed(run):
    assert run("--version").stdout.startswith("vlfer 0.")


def test_an_unknown_command_or_option_is_a_usage_error(run):
    assert run("predictt").exit_code == 2
    assert run("predict", "--nonsense").exit_code == 2
    assert run("predict", "x.jpg", "--format", "xml").exit_code == 2
