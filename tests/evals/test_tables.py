from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from puna.base.errors import ArtifactError, InputError
from puna.evals.tables import json_of, read_rows, text_of

ROWS = [{"question": 'What is "1"?', "answer": "one, or two"}, {"question": "à\tb", "answer": "c"}]


def test_the_same_rows_come_from_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "list.json").write_text(json.dumps(ROWS))
    (tmp_path / "a.csv").write_text('question,answer\n"What is ""1""?","one, or two"\n"à\tb",c\n', encoding="utf-8")
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    for path in tmp_path.iterdir():
        assert read_rows(path) == ROWS, path.name


def test_files_without_a_header_get_numbers_or_the_names_given(tmp_path: Path) -> None:
    mmlu = tmp_path / "mmlu.csv"
    mmlu.write_text("What is 2 + 2?,3,4,5,6,B\n")
    assert read_rows(mmlu) == [{"0": "What is 2 + 2?", "1": "3", "2": "4", "3": "5", "4": "6", "5": "B"}]
    mgsm = tmp_path / "mgsm_de.tsv"
    mgsm.write_text('Er sagt "fünf".\t5\n', encoding="utf-8")
    assert read_rows(mgsm, ("question", "answer")) == [{"question": 'Er sagt "fünf".', "answer": "5"}]


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("a.txt", b"x", InputError, r"ends in '\.txt'"),
        ("a.jsonl", b"", InputError, "no rows"),
        ("a.csv", b"", InputError, "no rows"),
        ("a.json", b"[1]", ArtifactError, "not every entry"),
        ("a.jsonl", b"{", ArtifactError, "line 1"),
        ("a.csv", b"a,b\n1\n", ArtifactError, "row 1: 1 fields"),
        ("a.csv", b"\xff\xfe", ArtifactError, "not valid CSV"),
        ("a.parquet", b"PAR1", ArtifactError, "not a valid Parquet"),
        ("b.parquet", None, ArtifactError, "There is no file"),
        ("b.csv", None, ArtifactError, "cannot be read"),
        ("b.json", None, ArtifactError, "cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes | None, error: type, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=says):
        read_rows(tmp_path / name)


def test_a_column_that_is_missing_is_named_with_those_there_are() -> None:
    assert text_of({"a": 3}, "a", "f") == "3"
    with pytest.raises(InputError, match=r"f: a row's 'b' is None.*The row has: a, c"):
        text_of({"a": 1, "c": 2}, "b", "f")


def test_json_in_a_column_may_be_text() -> None:
    assert json_of({"a": "[1]"}, "a") == json_of({"a": [1]}, "a") == [1]
    assert json_of({"a": "x"}, "a") == "x"
