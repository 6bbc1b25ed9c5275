"""How the app looks: fonts that Gradio brings along, colours for day and night, one style sheet, one script."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import gradio as gr

from vlfer.serve.ui_engine import Limits

INK = gr.themes.Color(
    "#f7f5f1", "#eeebe4", "#e2ddd3", "#cbc5b9", "#a39e94", "#797670", "#5b5a57", "#42423f", "#2b2d2e", "#1b1e20",
    "#121416", name="ink",
)  # fmt: skip
TEAL = gr.themes.Color(
    "#eef7f6", "#d6ecea", "#b1dad7", "#83c2bf", "#4fa3a2", "#2b8586", "#1f6b6e", "#1c565a", "#194548", "#14373a",
    "#0b2224", name="teal",
)  # fmt: skip

# The style sheet defines these colours for day and for night.
_FILLS = {
    "background_fill_primary": "var(--vl-card)",
    "background_fill_secondary": "var(--vl-page)",
    "block_background_fill": "var(--vl-card)",
    "block_border_color": "var(--vl-edge)",
    "block_info_text_color": "var(--vl-soft)",
    "block_label_text_color": "var(--vl-soft)",
    "block_title_text_color": "var(--vl-ink)",
    "body_background_fill": "var(--vl-page)",
    "body_text_color": "var(--vl-ink)",
    "border_color_primary": "var(--vl-edge)",
    "button_primary_background_fill": "var(--vl-accent)",
    "button_primary_background_fill_hover": "var(--vl-accent)",
    "button_primary_text_color": "var(--vl-on-accent)",
    "button_secondary_background_fill": "var(--vl-field)",
    "button_secondary_background_fill_hover": "var(--vl-tint)",
    "button_secondary_border_color": "var(--vl-edge)",
    "button_secondary_text_color": "var(--vl-ink)",
    "input_background_fill": "var(--vl-field)",
    "input_border_color": "var(--vl-edge)",
    "link_text_color": "var(--vl-accent)",
}


def build_theme() -> gr.themes.Base:
    """Return the theme; its fonts are files on this server."""
    sans: list[Any] = [gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", "sans-serif"]
    mono: list[Any] = [gr.themes.LocalFont("IBM Plex Mono", weights=(400,)), "ui-monospace", "monospace"]
    theme = gr.themes.Base(
        primary_hue=TEAL, secondary_hue=TEAL, neutral_hue=INK, radius_size="lg", spacing_size="md", text_size="md",
        font=sans, font_mono=mono,
    )  # fmt: skip
    both = {f"{name}{time}": value for name, value in _FILLS.items() for time in ("", "_dark")}
    return theme.set(block_title_text_weight="600", block_shadow="none", **both)


def asset(name: str) -> str:
    """Return the text of a file in ``static``."""
    return files("vlfer.serve").joinpath("static", name).read_text("utf-8")


def appearance(limits: Limits | None = None) -> dict[str, Any]:
    """Return what ``launch`` and ``mount_gradio_app`` need to show the app as it is meant, and to bound uploads."""
    return {
        "theme": build_theme(), "css": asset("vlfer.css"), "js": asset("vlfer.js"), "footer_links": ["api"],
        "ssr_mode": False,
        "max_file_size": f"{(limits or Limits()).upload_mb}mb",
        "show_error": False, "favicon_path": str(files("vlfer.serve").joinpath("static", "favicon.svg")),
    }  # fmt: skip
