import io
import urllib.request

import numpy as np
import pytest
from PIL import Image

from vlfer.errors import EnvironmentProblem
from vlfer.export.mjpeg import LivePage


def test_the_newest_picture_reaches_the_browser():
    page = LivePage(port=0)
    try:
        assert b"<img" in urllib.request.urlopen(page.address, timeout=5).read()
        page.show(np.full((20, 30, 3), 200, np.uint8))
        stream = urllib.request.urlopen(page.address + "stream", timeout=5)
        assert stream.readline().strip() == b"--frame"
        stream.readline()
        length = int(stream.readline().split()[1])
        stream.readline()
        with Image.open(io.BytesIO(stream.read(length))) as image:
            assert image.size == (30, 20)
        port = int(page.address.rstrip("/").rpartition(":")[2])
        with pytest.raises(EnvironmentProblem, match="--port 0"):
            LivePage(port=port)
    finally:
        page.close()
