"""Addresses and waits."""

from __future__ import annotations

import email.utils
import time

import pytest

from puna.base.web import is_loopback, is_public, retry_after


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_what_reaches_nobody_else(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.1.1", "example.org", "", "localhost.example.org"])
def test_what_others_may_reach(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(("value", "seconds"), [("3", 3.0), (" 0.5 ", 0.5), ("", 0.0), ("soon", 0.0), ("-1", 0.0)])
def test_a_wait_is_a_number_of_seconds(value: str, seconds: float) -> None:
    assert retry_after(value) == seconds


def test_or_a_date() -> None:
    assert retry_after(email.utils.formatdate(time.time() + 60)) == pytest.approx(60, abs=5)
    assert retry_after(email.utils.formatdate(time.time() - 60)) == 0


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_of_the_open_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::", "::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
        "2002:a00:1::1", "example.org", "",
    ],
)  # fmt: skip
def test_addresses_that_are_not(address: str) -> None:
    assert not is_public(address)
