"""Tables beside images: comma-separated values or lines of JSON, as spreadsheets and data sets write them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TABLES = ("metadata.csv", "metadata.jsonl")  # the image-folder convention of Hugging Face's datasets
LONGEST_FIELD = 2**30  # characters
DELIMITERS = ",;\t"  # as spreadsheets in several countries write them

Rows = list[dict[str, str]]


def find_table(folder: Path) -> Path | None:
    """Return the table of a folder, if it has one; ValueError if it has two."""
    found = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(found) > 1:
        raise ValueError(f"{folder} has {' and '.join(path.name for path in found)}; keep one of them")
    return found[0] if found else None


def read_table(file: Path, *needed: str, strip: bool = True) -> tuple[Rows, list[str]]:
    """Return the rows of a table, column -> text, and its columns.

    Args:
        file: .csv, in UTF-8 or UTF-16, with or without a byte order mark, separated by commas, semicolons or
            tabs; or .jsonl, an object per line.
        needed: columns that it must have.
        strip: whether blanks around a text are no part of it.

    Raises:
        ValueError: it can't be read, a column is missing or comes twice, or a row has another number of
            fields than the first line.
    """
    text = _decoded(file)
    rows, columns = _json_lines(file, text) if file.suffix == ".jsonl" else _separated(file, text)
    if missing := [column for column in needed if column not in columns]:
        raise ValueError(f"{file} has no column {', '.join(missing)}; it has {', '.join(columns)}")
    if strip:
        rows = [{name: text.strip() for name, text in row.items()} for row in rows]
    return rows, columns


def _decoded(file: Path) -> str:
    data = file.read_bytes()
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8 ({error}); save it in that encoding") from None
    if "\0" in text:
        raise ValueError(f"{file} is no text: it has zero bytes; save it as UTF-8")
    return text


def _separated(file: Path, text: str) -> tuple[Rows, list[str]]:
    limit = csv.field_size_limit(LONGEST_FIELD)  # the csv module's own limit is less than a long article
    header = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)  # the first of those that are as frequent
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        columns = [name.strip() for name in next(reader, [])]
        rows: Rows = []
        for fields in reader:
            if not fields:
                continue  # an empty line
            if len(fields) != len(columns):
                raise ValueError(
                    f"{file}, row {len(rows) + 2}: it has not {len(columns)} fields as the first line "
                    f"but {len(fields)}"
                )
            rows.append(dict(zip(columns, fields, strict=True)))
    except csv.Error as error:
        raise ValueError(f"{file} is no table of separated values: {error}") from None
    finally:
        csv.field_size_limit(limit)
    _refuse_repeated(file, columns)
    return rows, columns


def _refuse_repeated(file: Path, columns: Sequence[str]) -> None:
    if repeated := sorted({name for name in columns if columns.count(name) > 1}):
        raise ValueError(f"{file} has the column {repeated[0]!r} twice; name each once")


def _json_lines(file: Path, text: str) -> tuple[Rows, list[str]]:
    records: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}, line {number}: it is no JSON: {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{file}, line {number}: it is no JSON object, as {{...}}")
        records.append(record)
    columns = list(dict.fromkeys(name for record in records for name in record))
    return [{name: _as_text(record.get(name)) for name in columns} for record in records], columns


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
