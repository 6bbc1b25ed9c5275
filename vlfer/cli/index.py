"""`vlfer index`: find moments in many videos by words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlfer.cli.exits import INTERRUPTED, SOME_FAILED, say
from vlfer.errors import ConfigError, DataError, VlferError

if TYPE_CHECKING:
    from vlfer.pipeline import EmotionPipeline
    from vlfer.search import SearchIndex

app = typer.Typer(help="Find moments in many videos and images by words.", no_args_is_help=True, rich_markup_mode=None)
_FOLDER = "vlfer-index"

IndexFolder = Annotated[Path, typer.Option("--index", help="Folder of the index.")]
Backbone = Annotated[str | None, typer.Option(help="See: vlfer backbones list. [bundled]")]


@app.callback()
def _root() -> None:
    """Find moments in many videos and images by words."""


@app.command()
def build(
    folders: Annotated[list[str], typer.Argument(help="Folders, files, globs.", show_default=False)],
    index: IndexFolder = Path(_FOLDER),
    backbone: Backbone = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda. [auto]")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames looked at per second of video. [8]")] = None,
    thumbnails: Annotated[bool, typer.Option(help="Keep a small picture of each face.")] = True,
    prune: Annotated[bool, typer.Option("--prune", help="Also remove files of the index that are gone.")] = False,
) -> None:
    """Add the images and videos of a folder to an index; what is in it unchanged is passed over.

    The index holds vectors and small pictures of faces: personal data. Keep it as you keep the videos. It may be
    stopped at any time and goes on where it was.
    """
    from vlfer.video.paths import expand_paths

    paths = [path.resolve() for path in expand_paths(list(folders))]
    pipeline = _pipeline(backbone, device=device, fps=fps, faces="auto")
    failed = 0
    with _opened(index, pipeline, must_exist=False) as opened:
        known = opened.sources()
        todo = [path for path in paths if known.get(str(path)) != _stamp(path)]
        try:
            for number, path in enumerate(todo, start=1):
                failed += not _add(opened, pipeline, path, thumbnails=thumbnails, progress=f"{number} of {len(todo)}")
        except KeyboardInterrupt:
            say(f"Interrupted: {number - 1} of {len(todo)} files were added, and kept.")
            raise typer.Exit(INTERRUPTED) from None
        gone = [name for name in known if not Path(name).exists()] if prune else []
        for name in gone:
            opened.remove(name)
        say(
            f"{len(todo)} files looked at, {len(paths) - len(todo)} unchanged, {len(gone)} removed: "
            f"{len(opened)} moments of {len(opened.sources())} files in {index} ({opened.kind})."
        )
    if failed:
        raise typer.Exit(SOME_FAILED)


@app.command()
def query(
    words: Annotated[str, typer.Argument(help='What to look for: "a suppressed smile".')],
    index: IndexFolder = Path(_FOLDER),
    count: Annotated[int, typer.Option("--count", "-k", help="Moments listed.", min=1, max=1000)] = 12,
    backbone: Backbone = None,
    thumbnails: Annotated[Path | None, typer.Option(help="Write the pictures into this folder.")] = None,
    form: Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Print the moments that look most like a description, best first.

    Similarity ranks moments against one another; it is no probability, and there is always a best one.
    """
    from vlfer.search import query_vector

    pipeline = _pipeline(backbone, faces="whole")
    with _opened(index, pipeline, must_exist=True) as opened:
        hits = opened.query(query_vector(pipeline.bank, words), count)
    rows: list[dict[str, Any]] = []
    for number, hit in enumerate(hits, start=1):
        picture = ""
        if thumbnails is not None and hit.thumbnail is not None:
            from vlfer.config import write_atomically

            picture = str(thumbnails / f"{number:03d}.jpg")
            write_atomically(Path(picture), hit.thumbnail)
        rows.append({
            "source": hit.source, "start_s": round(hit.start_s, 3), "end_s": round(hit.end_s, 3),
            "track_id": hit.track_id, "similarity": round(hit.similarity, 4), "thumbnail": picture,
        })  # fmt: skip
    _print(rows, form)


@app.command("list")
def list_sources(
    index: IndexFolder = Path(_FOLDER),
    backbone: Backbone = None,
) -> None:
    """Print the files that are in an index, one a line; on stderr those in which nothing was found."""
    with _opened(index, _pipeline(backbone, faces="whole"), must_exist=True) as opened:
        for name in opened.sources():
            typer.echo(name)
        for name, note in opened.notes().items():
            say(f"{name}: {note}")


@app.command()
def remove(
    sources: Annotated[list[str], typer.Argument(help="Files, as `vlfer index list` prints them.")],
    index: IndexFolder = Path(_FOLDER),
    backbone: Backbone = None,
) -> None:
    """Remove files from an index, with their vectors and pictures. The files themselves stay."""
    with _opened(index, _pipeline(backbone, faces="whole"), must_exist=True) as opened:
        known = opened.sources()
        for source in sources:
            name = source if source in known else str(Path(source).resolve())
            say(f"{opened.remove(name)} moments of {name} removed.")


def _pipeline(backbone: str | None, **settings: Any) -> EmotionPipeline:
    from vlfer.pipeline import load_pipeline

    return load_pipeline(backbone, **settings)


def _opened(folder: Path, pipeline: EmotionPipeline, *, must_exist: bool) -> SearchIndex:
    from vlfer.search import SearchIndex

    if must_exist and not (folder / "moments.sqlite").is_file():
        raise ConfigError(
            f"There is no index in {str(folder)!r}.", fix=f"vlfer index build FOLDER --index {folder}"
        )  # fmt: skip
    return SearchIndex.open(folder, encoder_space=pipeline.encoder.space)


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
    return f"{found.st_size}-{found.st_mtime_ns}"


def _add(index: SearchIndex, pipeline: EmotionPipeline, path: Path, *, thumbnails: bool, progress: str) -> bool:
    """Add one file; a file without a face is remembered as such, a damaged one is told and tried again next time."""
    from vlfer.errors import NoFaceError
    from vlfer.search import find_moments

    stamp = _stamp(path)
    try:
        added = index.add_source(path, find_moments(pipeline, path, thumbnails=thumbnails), stamp=stamp)
    except NoFaceError as error:
        index.add_source(path, [], stamp=stamp, note=error.message)
        say(f"{progress}: {path}: {error.message}")
        return True
    except VlferError as error:
        say(f"{progress}: {path}: {error.message}")
        return False
    say(f"{progress}: {path}: {added} moments")
    return True


def _print(rows: list[dict[str, Any]], form: Literal["table", "json", "csv"]) -> None:
    import csv
    import sys

    if form == "json":
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif form == "csv":
        columns = ["source", "start_s", "end_s", "track_id", "similarity", "thumbnail"]
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        from rich.markup import escape
        from rich.table import Table

        from vlfer.cli.output import table_console

        table = Table("source", "seconds", "face", "similarity", box=None, pad_edge=False, header_style="bold")
        for row in rows:
            seconds = f"{row['start_s']:.1f} - {row['end_s']:.1f}"
            table.add_row(escape(row["source"]), seconds, str(row["track_id"] + 1), f"{row['similarity']:.3f}")
        table_console().print(table)
