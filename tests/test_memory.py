from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Page faults of 20 blocks of 64 MB, each written to and freed.
_COUNT = """
import resource
import numpy as np
from vlfer.memory import keep_freed_memory
{call}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    np.ones(8 * 2**20)
before = faults()
for _ in range(20):
    np.ones(8 * 2**20)
print(faults() - before)
"""


def _faults(call: str) -> int:
    code = _COUNT.format(call=call)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not GNU's")
def test_freed_memory_is_taken_again_without_page_faults() -> None:
    assert _faults("keep_freed_memory()") < _faults("") / 10


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from vlfer import memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: pytest.fail("It was loaded."))
    memory.keep_freed_memory()
