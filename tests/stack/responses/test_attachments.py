from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from puna.stack.context import Stack
from puna.stack.errors import ApiError
from puna.stack.responses.attachments import read_attachments
from puna.stack.responses.items import Item, read_items
from puna.stack.responses.messages import messages_of
from puna.stack.testing import make_stack

NOTE = base64.b64encode(b"The lid opens to the left.").decode()


def attached(**fields: str) -> list[Item]:
    return read_items([{"role": "user", "content": [{"type": "input_file", **fields}]}])


def read(stack: Stack, items: list[Item], owner: str = "") -> str:
    asyncio.run(read_attachments(stack, owner, items))
    return messages_of(items)[0].content


@pytest.mark.parametrize("data", [NOTE, f"data:text/plain;base64,{NOTE}"])
def test_a_file_in_the_message_is_read(tmp_path: Path, data: str) -> None:
    text = read(make_stack(tmp_path), attached(filename="lid.txt", file_data=data))
    assert "lid.txt" in text
    assert "The lid opens to the left." in text


def test_an_upload_is_read_by_its_owner_alone(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    stack.files.folder.mkdir()
    stack.files.path("file-1").write_bytes(b"# Lid\n\nIt opens to the left.\n")
    stack.store.insert("file", "file-1", {"filename": "lid.md"}, owner="ann")
    assert "opens to the left" in read(stack, attached(file_id="file-1"), "ann")
    with pytest.raises(ApiError) as caught:
        read(stack, attached(file_id="file-1"), "bob")
    assert (caught.value.status, caught.value.param) == (404, "input.0.content.0.file_id")


def test_what_is_no_base64_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ApiError) as caught:
        read(make_stack(tmp_path), attached(file_data="%%%"))
    assert caught.value.param == "input.0.content.0.file_data"


def test_an_empty_file_is_told_of(tmp_path: Path) -> None:
    text = read(make_stack(tmp_path), attached(filename="a.txt", file_data=base64.b64encode(b"  \n").decode()))
    assert text == "[The file a.txt holds no text.]"


def test_a_url_is_not_fetched(tmp_path: Path) -> None:
    assert "was not read" in read(make_stack(tmp_path), attached(filename="a", file_url="http://127.0.0.1:1/a"))
