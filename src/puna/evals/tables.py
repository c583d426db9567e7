"""Rows of a local file of questions: JSON lines, a JSON list, CSV, TSV or Parquet. What a row means is in `formats`.

A CSV file whose first row is not a header is read with numbers for names ("0", "1", ...), as MMLU's files are.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from puna.base.errors import ArtifactError, InputError
from puna.base.files import read_json, read_jsonl

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_FIELD_BYTES = 16 << 20  # a context of 128K tokens fits; Python's own limit is 128 KiB


def read_rows(path: Path | str, columns: Sequence[str] = ()) -> list[Row]:
    """The rows of a file.

    Args:
        path: of the file.
        columns: names for the columns of a CSV or TSV file without a header.

    Raises:
        InputError: another kind of file, or one without rows.
        ArtifactError: a file that is missing or damaged.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".json"):
        rows = _json_rows(path)
    elif suffix in (".csv", ".tsv"):
        rows = _csv_rows(path, "," if suffix == ".csv" else "\t", columns)
    elif suffix == ".parquet":
        rows = _parquet_rows(path)
    else:
        raise InputError(f"{path} ends in {suffix!r}.", hint=f"Questions are read from {', '.join(SUFFIXES)} files.")
    if not rows:
        raise InputError(f"{path} has no rows.", hint="Give a file with at least one question.")
    return rows


def _json_rows(path: Path) -> list[Row]:
    """JSON lines, or a list of objects in one JSON value; the Berkeley leaderboard's .json files are JSON lines."""
    if path.suffix.lower() == ".json" and _opens_with(path, b"["):
        rows = read_json(path)
        if not all(isinstance(row, dict) for row in rows):
            raise ArtifactError(f"{path} is a list, and not every entry of it is an object.")
        return rows
    return list(read_jsonl(path))


def _opens_with(path: Path, sign: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(256).lstrip().startswith(sign)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error


def _csv_rows(path: Path, delimiter: str, columns: Sequence[str]) -> list[Row]:
    csv.field_size_limit(_FIELD_BYTES)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # TSV files of the public sets hold quotation marks that quote nothing.
            quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
            lines = [line for line in csv.reader(file, delimiter=delimiter, quoting=quoting) if line]
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"{path} is not valid CSV: {error}.") from error
    if not lines:
        return []
    names = list(columns) or _header(lines[0])
    body = lines[1:] if not columns and names == lines[0] else lines
    for number, line in enumerate(body, 1):
        if len(line) != len(names):
            raise ArtifactError(f"{path}, row {number}: {len(line)} fields; the others have {len(names)}.")
    return [dict(zip(names, line, strict=True)) for line in body]


def _header(line: list[str]) -> list[str]:
    """The first line where it can be names: short words, no two alike; else numbers."""
    words = all(name and len(name) <= 40 and name.replace("_", "").isalnum() and not name.isdigit() for name in line)
    named = words and len(set(line)) == len(line) and not any(name in "ABCDE" for name in line)
    return line if named else [str(i) for i in range(len(line))]


def _parquet_rows(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        return parquet.read_table(path).to_pylist()
    except FileNotFoundError as error:
        raise ArtifactError(f"There is no file {path}.") from error
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{path} is not a valid Parquet file: {error}.") from error


def text_of(row: Row, name: str, path: Path | str) -> str:
    """A column as text; numbers are written out.

    Raises:
        InputError: the row has no such column, or something else in it.
    """
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        has = ", ".join(map(str, row))
        raise InputError(f"{path}: a row's {name!r} is {value!r}; it must be text. The row has: {has}.")
    return str(value)


def json_of(row: Row, name: str) -> Any:
    """A column that holds JSON, as a value or as its text (CSV has no other way)."""
    value = row.get(name)
    if isinstance(value, str):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value
