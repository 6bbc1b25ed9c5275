"""Tables of annotations as their authors give them: the first sheet of an .xlsx file, or a CSV file.

A workbook is a ZIP file of XML (ECMA-376); of all that it can hold only the text of cells matters here.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree
from zipfile import BadZipFile, ZipFile

from vlfer.errors import DataError

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_LONGEST_PREAMBLE = 60


def read_rows(path: Path) -> list[list[str]]:
    """Return the cells of a table as text, row by row; a cell that is not there is empty.

    Args:
        path: An .xlsx file, or CSV in UTF-8 with commas, semicolons or tabs.

    Raises:
        DataError: If it is neither.
    """
    try:
        content = path.read_bytes()
        if content.startswith(b"PK"):
            return _workbook(content)
        text = content.decode("utf-8-sig")
        delimiter = max(",;\t", key=re.sub(r'"[^"]*"', "", text.partition("\n")[0]).count)
        return [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter)]
    except (OSError, BadZipFile, KeyError, ValueError, csv.Error, ElementTree.ParseError) as error:
        raise DataError(
            f"The table {str(path)!r} cannot be read: {error}.", fix="an .xlsx file, or save it as CSV in UTF-8"
        ) from None


def find_table(rows: Sequence[Sequence[str]], columns: Mapping[str, Sequence[str]], *, path: Path) -> Iterator[
    tuple[int, dict[str, str]]
]:  # fmt: skip
    """Find the header below any preamble and yield the number and the named cells of each row under it.

    Args:
        rows: See `read_rows`.
        columns: Name to the headings that it goes by, without case, spaces and marks; a name that ends in "?" may be
            missing and is then empty.
        path: For messages.

    Raises:
        DataError: If no row holds every heading that is needed.
    """
    wanted = {name.rstrip("?"): (spellings, name.endswith("?")) for name, spellings in columns.items()}
    for number, row in enumerate(rows[:_LONGEST_PREAMBLE]):
        headings = [plain(cell) for cell in row]
        places = {
            name: next((headings.index(word) for word in spellings if word in headings), None)
            for name, (spellings, _) in wanted.items()
        }
        if all(place is not None or wanted[name][1] for name, place in places.items()):
            for below, cells in enumerate(rows[number + 1 :], start=number + 2):
                record = {
                    name: cells[place].strip() if place is not None and place < len(cells) else ""
                    for name, place in places.items()
                }
                if any(record.values()):
                    yield below, record
            return
    needed = ", ".join(name for name, (_, optional) in wanted.items() if not optional)
    raise DataError(
        f"The table {str(path)!r} has no header with {needed}.",
        why=f"Its first row is {', '.join(rows[0]) if rows else 'not there'}.",
    )


def plain(text: str) -> str:
    """Return letters and digits in lower case."""
    return "".join(ch for ch in text.casefold() if ch.isalnum())


def _workbook(content: bytes) -> list[list[str]]:
    with ZipFile(io.BytesIO(content)) as book:
        names = set(book.namelist())
        shared: list[str] = []
        if "xl/sharedStrings.xml" in names:
            root = ElementTree.fromstring(book.read("xl/sharedStrings.xml"))
            shared = ["".join(t.text or "" for t in item.iter(f"{_MAIN}t")) for item in root]
        sheet = ElementTree.fromstring(book.read(_first_sheet(book)))
    rows: list[list[str]] = []
    for line in sheet.iter(f"{_MAIN}row"):
        number = int(line.get("r", len(rows) + 1))
        rows += [[] for _ in range(number - len(rows))]
        for cell in line.iter(f"{_MAIN}c"):
            column = _column(cell.get("r", "")) if cell.get("r") else len(rows[number - 1])
            rows[number - 1] += [""] * (column + 1 - len(rows[number - 1]))
            rows[number - 1][column] = _text(cell, shared)
    return rows


def _first_sheet(book: ZipFile) -> str:
    sheets = ElementTree.fromstring(book.read("xl/workbook.xml")).iter(f"{_MAIN}sheet")
    wanted = next(sheet.get(_RELATION) for sheet in sheets)
    for relation in ElementTree.fromstring(book.read("xl/_rels/workbook.xml.rels")):
        if relation.get("Id") == wanted:
            target = str(relation.get("Target"))
            return target.lstrip("/") if target.startswith("/") else f"xl/{target}"
    raise KeyError("its first sheet")


def _column(address: str) -> int:
    number = 0
    for letter in re.sub(r"\d", "", address):
        number = 26 * number + ord(letter.upper()) - ord("A") + 1
    return number - 1


def _text(cell: ElementTree.Element, shared: Sequence[str]) -> str:
    kind, value = cell.get("t"), cell.find(f"{_MAIN}v")
    if kind == "inlineStr":
        return "".join(t.text or "" for t in cell.iter(f"{_MAIN}t")).strip()
    text = (value.text or "" if value is not None else "").strip()
    if kind == "s" and text:
        return shared[int(text)].strip()
    return text[:-2] if re.fullmatch(r"-?\d+\.0", text) else text
