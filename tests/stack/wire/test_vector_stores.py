"""Bodies of vector stores: what they take, what they refuse, and what they keep apart."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from puna.stack.wire import vector_stores as wire


def test_attributes_keep_their_kinds() -> None:
    entry = wire.FileEntry(file_id="file-1", attributes={"a": True, "b": 1, "c": 1.5, "d": "x"})
    assert entry.attributes is not None
    assert [type(value) for value in entry.attributes.values()] == [bool, int, float, str]


@pytest.mark.parametrize(
    "attributes",
    [{"a": None}, {"a": [1]}, {"a": "x" * 513}, {"k" * 65: "x"}, {str(n): 1 for n in range(17)}],
    ids=["null", "list", "long value", "long key", "many"],
)
def test_attributes_that_openai_refuses_are_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        wire.FileEntry(file_id="file-1", attributes=attributes)


def test_filters_nest() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(wire.AnyFilter)
    data = {
        "type": "or",
        "filters": [
            {"type": "in", "key": "a", "value": ["x", "y"]},
            {"type": "and", "filters": [{"type": "gte", "key": "year", "value": 2020}]},
        ],
    }
    assert adapter.validate_python(data).model_dump() == data


@pytest.mark.parametrize(
    "data",
    [
        {"type": "eq", "key": "a", "value": ["x"]},
        {"type": "in", "key": "a", "value": "x"},
        {"type": "and", "filters": []},
        {"type": "like", "key": "a", "value": "x"},
        {"type": "eq", "key": "a"},
    ],
)
def test_filters_that_are_none_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(wire.AnyFilter).validate_python(data)


def test_a_filter_nested_without_end_is_refused_and_breaks_nothing() -> None:
    data: dict[str, Any] = {"type": "eq", "key": "a", "value": 1}
    for _ in range(600):
        data = {"type": "and", "filters": [data]}
    with pytest.raises(ValidationError, match="nested more than 60 deep"):
        wire.SearchBody.model_validate({"query": "a", "filters": data})


def test_a_batch_has_each_file_once_and_its_own_settings_first() -> None:
    body = wire.CreateFileBatch.model_validate(
        {
            "files": [{"file_id": "a", "attributes": {"n": 1}}, {"file_id": "b"}],
            "file_ids": ["c", "c"],
            "attributes": {"n": 2},
        }
    )
    entries = body.entries()
    assert [entry.file_id for entry in entries] == ["a", "b", "c"]
    assert [entry.attributes for entry in entries] == [{"n": 1}, None, {"n": 2}]


@pytest.mark.parametrize("id", ["", "a/b", "a:b", "\ud800", "x" * 257])
def test_a_file_id_with_other_signs_is_refused(id: str) -> None:
    with pytest.raises(ValidationError):
        wire.FileEntry(file_id=id)


def test_unknown_fields_are_read_over() -> None:
    body = wire.CreateVectorStore.model_validate({"name": "a", "new_field": 1})
    assert body.name == "a"
