"""What is said before any database is asked; that it is asked rightly is seen in the tests of both stores."""

from __future__ import annotations

import pytest

from puna.base.errors import ConfigError
from puna.base.postgres import connect, driver


def test_a_url_that_cannot_be_read_is_refused_without_its_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        connect(driver("Keeping records in PostgreSQL"), "postgresql://puna:secret@host:port:1/name?nonsense=1")
    assert "secret" not in str(caught.value) + caught.value.hint
    assert caught.value.__suppress_context__
