"""How freed memory is kept: frames and maps of a tower come and go by the megabyte, hundreds of times a second."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT_BYTES = 256 * 2**20


def keep_freed_memory() -> None:
    """Let this process keep up to 256 MB that it has freed, for what it allocates next.

    The C library hands large blocks back to the system as soon as they are freed, and gets them again page by page: on
    a virtual machine whose cores are busy that can take a third of the time of a video. For programs; a library leaves
    its host's memory alone. Does nothing where the C library is not GNU's.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
