"""The Search tab: a few uploads become an index for this session, asked in words."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from vlfer.errors import PromptError
from vlfer.search.index import Hit, SearchIndex
from vlfer.search.moments import find_moments, query_sentences, query_vector
from vlfer.serve.ui_engine import Engine, SentenceScore
from vlfer.serve.ui_guard import explain, guarded
from vlfer.serve.ui_html import HONEST, clock, empty, esc, sentence_list
from vlfer.serve.ui_inputs import clip_input
from vlfer.serve.ui_samples import clip_path, portrait_path
from vlfer.serve.ui_video import example_folder
from vlfer.video.read import media_kind

IDEAS = ("a broad smile", "raised brows and an open mouth", "a disapproving frown")
MOST_FILES = 40
_CLICK = """element.addEventListener('click', (event) => {
  const hit = event.target.closest('[data-hit]');
  if (hit) trigger('click', {hit: Number(hit.dataset.hit)});
});"""


class Shelf:
    """The index of one session, in a private folder that goes with it.

    Args:
        engine: Finds the moments.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._folder = tempfile.TemporaryDirectory(prefix="vlfer-index-", ignore_cleanup_errors=True)
        self.index = SearchIndex.open(self._folder.name, encoder_space=engine.pipeline.encoder.space)
        self.files: dict[str, str] = {}
        self.hits: list[Hit] = []

    def add(self, path: str) -> int:
        """Take in a file and return the number of moments found.

        Raises:
            VlferError: If it cannot be read, is too long or shows no face.
        """
        pipeline, uploads = self.engine.pipeline, self.engine.uploads
        if media_kind(path) == "image":
            moments = find_moments(pipeline, uploads.pixels(path))
        else:
            with uploads.video(path) as clip:
                moments = find_moments(pipeline, clip)
        name = _free_name(Path(path).name, self.files)
        count = self.index.add_source(name, moments)
        self.files[name] = path
        return count

    def ask(self, words: str, *, most: int = 12) -> list[Hit]:
        """Return the moments nearest to the words.

        Raises:
            PromptError: If there are none.
        """
        self.hits = self.index.query(query_vector(self.engine.pipeline.bank, words.strip()), k=most)
        return self.hits

    def close(self) -> None:
        """Remove the index and its thumbnails."""
        self.index.close()
        self._folder.cleanup()


def start_html() -> str:
    """Return what stands in the place of the first answer."""
    return empty("Find a moment", "Upload photos or videos on the left, then describe what you look for.",
                 drawing="search")  # fmt: skip


def take_in(engine: Engine, paths: Sequence[str], shelf: Shelf | None, *, progress: Any = None) -> tuple[Shelf, str]:
    """Index files one by one; a file that cannot be used says why and hinders no other.

    Args:
        engine: Finds the moments.
        paths: Uploads.
        shelf: What the session has so far.
        progress: Told (done, total).
    """
    shelf = shelf or Shelf(engine)
    lines = []
    for number, path in enumerate(paths[:MOST_FILES]):
        if progress is not None:
            progress((number, len(paths)), desc="Looking", unit="files")
        if path in shelf.files.values():
            continue
        try:
            count = shelf.add(path)
            lines.append(f"<li>{esc(Path(path).name)}: {count} moment{'' if count == 1 else 's'}</li>")
        except Exception as error:
            lines.append(f"<li>{esc(Path(path).name)}{explain(error)}</li>")
    if len(paths) > MOST_FILES:
        lines.append(f"<li>{len(paths) - MOST_FILES} more files were left out.</li>")
    page = f'<div class="vl-card"><strong>{len(shelf.index)} moments in all</strong><ul>{"".join(lines)}</ul></div>'
    return shelf, page


def answer(shelf: Shelf | None, words: str) -> str:
    """Return the moments that are nearest to the words."""
    if shelf is None or not len(shelf.index):
        return start_html()
    if not words.strip():
        raise PromptError("The question is empty.", why="Moments are found by words.", fix="a suppressed smile")
    hits = shelf.ask(words)
    cards = "".join(_card(hit, i, is_film=_is_film(shelf.files.get(hit.source, ""))) for i, hit in enumerate(hits))
    sentence = esc(words.strip())
    compared = sentence_list(((words.strip(), tuple(SentenceScore(s) for s in query_sentences(words.strip()))),))
    return (
        f'<p class="vl-honest">Moments nearest to <strong>{sentence}</strong>, best first. There is always a nearest '
        "one, even where nothing fits: look at the cosine. It is relative to the words given, and no probability. "
        f'{HONEST}</p><ul class="vl-hits">{cards}</ul><div class="vl-card">{compared}</div>'
    )


def search_tab(engine: Engine) -> None:
    """Lay out the tab and wire it."""
    with gr.Row(elem_classes="vl-columns"):
        with gr.Column(scale=5, min_width=300, elem_classes="vl-left"):
            files = gr.File(
                label="Photos and videos", file_count="multiple", file_types=["image", "video"], height=170,
                elem_id="vl-search-files",
            )  # fmt: skip
            example = gr.Button("Try it on the examples", size="sm", elem_id="vl-search-example")
            with gr.Group(elem_classes="vl-ask"):
                words = gr.Textbox(label="What do you look for?", info="Describe a face in your own words.",
                                   value=IDEAS[0], elem_id="vl-words-search", elem_classes="vl-words", lines=2,
                                   max_length=500)  # fmt: skip
                with gr.Row(elem_classes="vl-ideas"):
                    ideas = [gr.Button(idea, size="sm", min_width=60) for idea in IDEAS]
            go = gr.Button("Search", variant="primary", elem_id="vl-search-go")
            remark = gr.HTML(apply_default_css=False, elem_id="vl-search-remark")
        with gr.Column(scale=7, min_width=320):
            player = clip_input(label="The moment", interactive=False, visible=False, height=300, buttons=[],
                                elem_id="vl-search-player")  # fmt: skip
            result = gr.HTML(start_html(), apply_default_css=False, elem_id="vl-search-result", js_on_load=_CLICK)
    shelf = gr.State(None, time_to_live=1800, delete_callback=_put_away)

    @guarded(failed=lambda card: (gr.skip(), card, gr.skip()))
    def take(paths: list[str] | None, text: str, kept: Shelf | None, progress: Any = gr.Progress()) -> Any:  # noqa: B008
        if not paths:
            _put_away(kept)
            return None, "", start_html()
        kept, page = take_in(engine, paths, kept, progress=progress)
        return kept, page, answer(kept, text) if text.strip() else start_html()

    @guarded(failed=lambda card: card)
    def ask(text: str, kept: Shelf | None) -> str:
        return answer(kept, text)

    @guarded(failed=lambda card: (gr.skip(), card))
    def show_examples() -> Any:
        film = clip_path(example_folder(), "moods", detector=engine.detector())
        return [str(film), str(portrait_path())], gr.skip()

    def play(event: gr.EventData, kept: Shelf | None) -> Any:
        number = int(event._data.get("hit", -1))
        if kept is None or not 0 <= number < len(kept.hits):
            return gr.skip()
        hit = kept.hits[number]
        path = kept.files.get(hit.source, "")
        if not _is_film(path):
            return gr.Video(visible=False)
        return gr.Video(value=path, visible=True, playback_position=hit.start_s)

    model: Any = {"concurrency_id": "model", "api_visibility": "private"}
    quick: Any = {"concurrency_id": "scores", "concurrency_limit": 4, "api_visibility": "private"}
    files.change(take, [files, words, shelf], [shelf, remark, result], **model)
    example.click(show_examples, None, [files, result], **model)
    go.click(ask, [words, shelf], result, **quick)
    words.submit(ask, [words, shelf], result, **quick)
    for idea in ideas:
        idea.click(lambda text: text, idea, words, queue=False, api_visibility="private").then(
            ask, [words, shelf], result, **quick
        )
    result.click(play, shelf, player, **quick)


def _put_away(shelf: Shelf | None) -> None:
    if shelf is not None:
        shelf.close()


def _is_film(path: str) -> bool:
    return bool(path) and media_kind(path) != "image"


def _free_name(name: str, taken: dict[str, str]) -> str:
    wanted, number = name, 1
    while wanted in taken:
        number += 1
        wanted = f"{name} ({number})"
    return wanted


def _card(hit: Hit, number: int, *, is_film: bool) -> str:
    address = "" if hit.thumbnail is None else "data:image/jpeg;base64," + base64.b64encode(hit.thumbnail).decode()
    when = f"{clock(hit.start_s)} to {clock(hit.end_s)}" if is_film else "photo"
    play = f'<button type="button" class="vl-link" data-hit="{number}">Show the moment</button>' if is_film else ""
    picture = f'<img src="{address}" alt="Face {hit.track_id + 1}" data-hit="{number}"/>' if address else ""
    return (
        f'<li class="vl-card vl-hit">{picture}<div><strong>{when}</strong> '
        f'<span class="vl-cos">cosine {hit.similarity:+.2f}</span><br/><span class="vl-faint">{esc(hit.source)}, '
        f"face {hit.track_id + 1}</span><br/>{play}</div></li>"
    )
