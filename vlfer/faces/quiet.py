"""Keep the start-up chatter of native libraries out of a program's stderr."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# glog and abseil ("W0000 00:00:17 ..."), TensorFlow Lite ("INFO: ...") and OpenCV ("[ WARN:0@0.08] ...").
_NATIVE_LOG = re.compile(rb"^(INFO: |WARNING: All log messages before absl|[IW]\d{4} [\d:.]+|\[ (INFO|WARN):)")


@contextmanager
def quiet_native_logs() -> Iterator[None]:
    """Hold back what native code writes to stderr, then pass on every line that is not a routine log line.

    MediaPipe and TensorFlow Lite write to file descriptor 2 directly, past ``sys.stderr``.
    """
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # the process has no stderr, so there is nothing to hold back
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            rest = b"".join(line for line in held if not _NATIVE_LOG.match(line))
            if rest:
                os.write(2, rest)
