"""A connection to PostgreSQL, for the two that keep things there: the server's records and a library of documents."""

from __future__ import annotations

from typing import Any

from puna.base.errors import ConfigError, missing_extra

WAIT_SECONDS = 30  # for a connection, and for a lock


def driver(purpose: str) -> Any:
    """The module psycopg.

    Args:
        purpose: what it is needed for, as the beginning of a sentence.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import psycopg
    except ImportError as error:
        raise missing_extra("psycopg", "postgres", purpose) from error
    return psycopg


def connect(psycopg: Any, url: str) -> Any:
    """A connection that commits each statement by itself.

    Raises:
        ConfigError: the URL cannot be read. What psycopg says of a database that is away is its own error.
    """
    options = {"connect_timeout": WAIT_SECONDS, "application_name": "puna"}
    try:
        connection = psycopg.connect(url, autocommit=True, **options)
    except psycopg.ProgrammingError:
        # Its message holds the URL, and that holds the password.
        raise ConfigError(
            "The URL of the PostgreSQL database cannot be read.",
            hint="Write postgresql://user:password@host:port/name.",
        ) from None
    connection.execute(f"SET lock_timeout = '{WAIT_SECONDS}s'")
    connection.execute("SET client_encoding = 'UTF8'")
    return connection
