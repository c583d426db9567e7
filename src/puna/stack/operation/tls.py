"""The server's certificate: checked before anything is bound, and read again when it was renewed.

Versions and ciphers are those that Python takes for a server (TLS 1.2 and newer). Left out: certificates of clients,
for keys say who calls, and encrypted keys, whose password would have to lie beside them.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

from puna.base.errors import ConfigError

_MISMATCH = "KEY_VALUES_MISMATCH"


class _EncryptedError(Exception):
    pass


def check(cert: str, key: str) -> None:
    """Reads a certificate and its key as the server would.

    Args:
        cert: PEM file of the certificate, and after it those that it was signed with.
        key: PEM file of its key.

    Raises:
        ConfigError: a file is missing, unreadable or not in that form, or the key is another certificate's.
    """
    _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert, key)


def renew(context: ssl.SSLContext, cert: str, key: str) -> None:
    """Gives a server's context the certificate that the files hold now; open connections keep the one they have.

    Raises:
        ConfigError: as `check`; the context is as it was.
    """
    check(cert, key)  # in a context of its own: one that fails is left half changed
    _load(context, cert, key)


def _load(context: ssl.SSLContext, cert: str, key: str) -> None:
    for name, path in (("certificate", cert), ("key", key)):
        _readable(name, path)
    try:
        context.load_cert_chain(cert, key, _no_password)
    except _EncryptedError as error:
        raise ConfigError(
            f"The TLS key {key} is encrypted, and nobody is there to type its password.",
            hint="Write it without one: openssl pkey -in KEY -out PLAIN, readable by the server's user alone.",
        ) from error
    except ssl.SSLError as error:
        if error.reason == _MISMATCH:
            raise ConfigError(
                f"The TLS key {key} does not belong to the certificate {cert}.",
                hint="Name the key that the certificate was requested with; the server's own certificate comes first.",
            ) from error
        name, path = ("key", key) if _has_certificate(cert) else ("certificate", cert)
        raise ConfigError(
            f"The TLS {name} {path} is no whole {name} in PEM form.",
            hint=f"Its first line is -----BEGIN {'PRIVATE KEY' if name == 'key' else 'CERTIFICATE'}-----.",
        ) from error


def _readable(name: str, path: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"The TLS {name} {path} cannot be read: {error.strerror}.",
            hint="Check the path, and that the server's user may read it.",
        ) from error


def _has_certificate(path: str) -> bool:
    with suppress(ssl.SSLError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        return True
    return False


def _no_password() -> str:
    """In the place of OpenSSL's own question, for which a server would wait for ever."""
    raise _EncryptedError
