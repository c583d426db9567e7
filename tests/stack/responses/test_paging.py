from __future__ import annotations

from typing import Any

import pytest

from puna.stack.errors import ApiError
from puna.stack.responses.paging import page

ITEMS = [{"id": str(i)} for i in range(5)]


def ids(found: dict[str, Any]) -> tuple[list[str], bool]:
    assert found["first_id"] == found["data"][0]["id"]
    assert found["last_id"] == found["data"][-1]["id"]
    return [item["id"] for item in found["data"]], found["has_more"]


@pytest.mark.parametrize(
    ("after", "before", "limit", "order", "expected"),
    [
        (None, None, 2, "asc", (["0", "1"], True)),
        ("1", None, 2, "asc", (["2", "3"], True)),
        ("3", None, 2, "asc", (["4"], False)),
        (None, None, 5, "desc", (["4", "3", "2", "1", "0"], False)),
        ("3", None, 2, "desc", (["2", "1"], True)),
        (None, "3", 2, "asc", (["1", "2"], True)),
        ("0", "3", 9, "asc", (["1", "2"], False)),
    ],
)
def test_pages(after: Any, before: Any, limit: int, order: Any, expected: Any) -> None:
    assert ids(page(ITEMS, after, before, limit, order)) == expected


def test_an_unknown_mark_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        page(ITEMS, "9", None, 5, "asc")
    assert (caught.value.status, caught.value.param) == (404, "after")


def test_an_empty_list_has_no_ids() -> None:
    assert page([], None, None, 5, "asc")["first_id"] == ""
