"""What a Space runs: the web app with the bundled model."""

from __future__ import annotations

import os

from vlfer.memory import keep_freed_memory
from vlfer.pipeline import load_pipeline
from vlfer.serve.ui import serve_ui

if __name__ == "__main__":
    keep_freed_memory()
    serve_ui(
        load_pipeline(),
        host=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
    )
