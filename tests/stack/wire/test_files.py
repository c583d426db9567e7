"""The model of a file accepts what the server sends."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from puna.stack.state.store import Record
from puna.stack.state.uploads import file_object
from puna.stack.wire.files import UPLOAD_PURPOSES, File


def test_a_file_object_is_a_file() -> None:
    data = {"filename": "a.txt", "purpose": "batch", "bytes": 3, "expires_at": None, "stores": []}
    shown = file_object(Record("file", "file-1", "", "", 12.7, 1, data))
    file = File.model_validate(shown)
    assert (file.id, file.created_at, file.status) == ("file-1", 12, "processed")
    assert "stores" not in shown
    with pytest.raises(ValidationError):
        File.model_validate({**shown, "bytes": None})


def test_what_the_server_writes_is_not_for_uploads() -> None:
    assert "batch" in UPLOAD_PURPOSES
    assert "batch_output" not in UPLOAD_PURPOSES
