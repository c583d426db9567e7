"""Certificates: what is refused before a port is bound, HTTPS on a socket, and a renewal while it runs."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trustme

from puna.base.errors import ConfigError
from puna.cli import run
from puna.stack.config import ServerConfig
from puna.stack.operation import server, tls


class Certificates:
    """A folder with the certificates of an authority that nobody knows but the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.authority = folder, trustme.CA()
        self.trust = ssl.create_default_context()
        self.authority.configure_trust(self.trust)

    def make(self, name: str) -> tuple[str, str]:
        made = self.authority.issue_cert("127.0.0.1", common_name=name)
        cert, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        cert.write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
        key.write_bytes(made.private_key_pem.bytes())
        return str(cert), str(key)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def encrypted(key: str) -> str:
    from cryptography.hazmat.primitives import serialization as form

    plain = form.load_pem_private_key(Path(key).read_bytes(), None)
    hidden = form.BestAvailableEncryption(b"secret")
    path = Path(key).with_suffix(".hidden")
    path.write_bytes(plain.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, hidden))
    return str(path)


# What is refused ------------------------------------------------------------------------------------------------------


def test_files_that_are_not_there_or_cannot_be_read_are_named(certificates: Certificates, tmp_path: Path) -> None:
    cert, key = certificates.make("a")
    tls.check(cert, key)
    with pytest.raises(ConfigError, match=r"TLS certificate .*nowhere\.crt cannot be read: No such file"):
        tls.check(str(tmp_path / "nowhere.crt"), key)
    with pytest.raises(ConfigError, match=r"TLS key .* cannot be read: Is a directory"):
        tls.check(cert, str(tmp_path))


def test_a_key_of_another_certificate_is_refused(certificates: Certificates) -> None:
    (cert, _), (_, other) = certificates.make("a"), certificates.make("b")
    with pytest.raises(ConfigError, match=r"key .*b\.key does not belong to the certificate .*a\.crt"):
        tls.check(cert, other)


def test_what_is_no_pem_is_refused_by_its_name(certificates: Certificates, tmp_path: Path) -> None:
    cert, key = certificates.make("a")
    (tmp_path / "empty").touch()
    (tmp_path / "cut.key").write_text(Path(key).read_text()[:100])
    (tmp_path / "cut.crt").write_text(Path(cert).read_text()[:100])
    for name in ("empty", "cut.crt", "a.key"):
        with pytest.raises(ConfigError, match=f"certificate .*{name} is no whole certificate"):
            tls.check(str(tmp_path / name), key)
    for name in ("empty", "cut.key", "a.crt"):
        with pytest.raises(ConfigError, match=f"key .*{name} is no whole key"):
            tls.check(cert, str(tmp_path / name))


def test_an_encrypted_key_is_refused_and_no_password_asked_for(certificates: Certificates) -> None:
    cert, key = certificates.make("a")
    with pytest.raises(ConfigError, match="is encrypted") as caught:
        tls.check(cert, encrypted(key))
    assert "openssl pkey" in caught.value.hint


def test_a_wrong_certificate_is_refused_before_the_port_is_bound(
    certificates: Certificates, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key = certificates.make("a")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match="cannot be read"):  # and not that the port is taken
            server.listen(ServerConfig(port=port, tls_cert=cert, tls_key=str(tmp_path / "nowhere")))
    (tmp_path / "stack.toml").touch()
    command = ["serve", "--config", str(tmp_path / "stack.toml"), "--state", str(tmp_path / "state"), "--port", "0"]
    assert run([*command, "--tls-cert", cert, "--tls-key", cert]) == ConfigError.exit_code
    assert "is no whole key" in capsys.readouterr().err
    assert run([*command, "--tls-key", key]) == ConfigError.exit_code
    assert "There is tls_key without tls_cert" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_a_renewal_that_is_refused_leaves_the_old_certificate(certificates: Certificates) -> None:
    (cert, key), (_, other) = certificates.make("a"), certificates.make("b")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.renew(context, cert, key)
    with pytest.raises(ConfigError, match="does not belong"):
        tls.renew(context, cert, other)
    assert _name_over_memory(context, certificates.trust) == "a"


def _name_over_memory(context: ssl.SSLContext, trust: ssl.SSLContext) -> str:
    """The name in the certificate that a server of this context shows."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(back, there, server_hostname="127.0.0.1")
    serving = context.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for side in (client, serving):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return common_name(client.getpeercert())


def common_name(certificate: object) -> str:
    assert isinstance(certificate, dict)
    return next(value for row in certificate["subject"] for name, value in row if name == "commonName")


# On a socket ----------------------------------------------------------------------------------------------------------


@contextmanager
def served(folder: Path, cert: str, key: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`puna serve` with a certificate: its process, and its address."""
    (folder / "stack.toml").touch()
    command = [sys.executable, "-m", "puna", "serve", "--config", str(folder / "stack.toml"), "--port", "0", "-q"]
    command += ["--state", str(folder / "state"), "--tls-cert", cert, "--tls-key", key]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("Puna answers at https://"), line + process.stderr.read()
            yield process, line.split()[-1]
        finally:
            process.kill()


def shown(address: str, trust: ssl.SSLContext) -> str:
    host, port = address.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port))) as plain, trust.wrap_socket(plain, server_hostname=host) as client:
        return common_name(client.getpeercert())


def test_https_answers_and_plain_http_on_its_port_breaks_nothing(certificates: Certificates, tmp_path: Path) -> None:
    cert, key = certificates.make("a")
    with served(tmp_path, cert, key) as (process, address):
        plain = address.replace("https:", "http:")
        with httpx.Client(verify=certificates.trust, trust_env=False) as client:
            assert client.get(f"{address}/v1/version").status_code == 200
            for _ in range(20):
                with pytest.raises(httpx.RemoteProtocolError):
                    httpx.get(f"{plain}/v1/version", trust_env=False)
            with socket.create_connection(("127.0.0.1", httpx.URL(address).port or 0)) as noise:
                noise.sendall(bytes(range(256)))
                assert client.get(f"{address}/v1/version").status_code == 200
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{address}/v1/version", trust_env=False)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_hangup_makes_it_read_a_renewed_certificate(certificates: Certificates, tmp_path: Path) -> None:
    cert, key = certificates.make("old")
    with served(tmp_path, cert, key) as (process, address):
        assert process.stderr is not None
        assert shown(address, certificates.trust) == "old"
        new_cert, new_key = certificates.make("new")
        Path(new_cert).replace(cert)
        process.send_signal(signal.SIGHUP)  # between the two files of a renewal
        assert "old certificate stays in use" in process.stderr.readline()
        assert shown(address, certificates.trust) == "old"
        Path(new_key).replace(key)
        process.send_signal(signal.SIGHUP)
        assert "was read again" in process.stderr.readline()
        assert shown(address, certificates.trust) == "new"
