"""Elements of the page: tables, definition lists and embedded images, all text escaped."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from argmax_vae.errors import UsageError

NUMBER = re.compile(r"(\*\*)?[+−]?\d[\d.]*(e[+−]?\d+)?( ± \d[\d.]*(e[+−]?\d+)?)?(\*\*)?|–|")
LONG = 45
"""Characters from which on a column's texts are broken into lines."""

PNG = b"\x89PNG\r\n\x1a\n"


def text(cell: str) -> str:
    """A cell's text; what Markdown has bold is bold."""
    bold = len(cell) > 4 and cell.startswith("**") and cell.endswith("**")
    return f"<strong>{escape(cell[2:-2])}</strong>" if bold else escape(cell)


def table(
    rows: Sequence[Mapping[str, str]],
    caption: str,
    identity: str,
    header: str = "estimator",
    links: Mapping[str, str] | None = None,
    linked: str = "",
) -> str:
    """Rows of text as a table in a container that scrolls; numbers are aligned.

    Args:
        rows: heading → text, the same headings in each row.
        caption: a few words, shown above it.
        identity: its id.
        header: the column that names a row.
        links: ids that texts of the column `linked`, by default that one, link to.
    """
    columns = list(rows[0])

    def kind(column: str) -> str:
        if all(NUMBER.fullmatch(row[column]) for row in rows):
            return ' class="number"'
        return ' class="long"' if max(len(row[column]) for row in rows) > LONG else ""

    kinds = {column: kind(column) for column in columns}

    def cell(row: Mapping[str, str], column: str) -> str:
        target = (links or {}).get(row[column]) if column == (linked or header) else None
        inner = f'<a href="#{target}">{text(row[column])}</a>' if target else text(row[column])
        return (
            f'<th scope="row"{kinds[column]}>{inner}</th>' if column == header else f"<td{kinds[column]}>{inner}</td>"
        )

    head = "".join(f'<th scope="col"{kinds[column]}>{escape(column)}</th>' for column in columns)
    body = "\n".join(f"<tr>{''.join(cell(row, column) for column in columns)}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{identity}-caption">'
        f'<table id="{identity}"><caption id="{identity}-caption">{escape(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def definitions(values: Mapping[str, str]) -> str:
    """Names with their values as a list."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in values.items())}</dl>"


def image(path: Path, description: str) -> str:
    """A PNG file as an image that the page carries. Raises UsageError when the file is no PNG."""
    content = path.read_bytes()
    if not content.startswith(PNG) or len(content) < 24:
        raise UsageError(f"{path}: not a PNG file; remove it or make it again")
    width, height = struct.unpack(">II", content[16:24])
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return f'<img src="{source}" alt="{escape(description)}" width="{width}" height="{height}">'
