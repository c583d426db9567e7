"""The filter, run by a small interpreter of BPF on calls of both architectures, and its size."""

from __future__ import annotations

import errno
import struct

import pytest

from puna.base.errors import ResourceError
from puna.sandbox import seccomp

X86, ARM = 0xC000003E, 0xC00000B7
ALLOW, KILL = seccomp.ALLOW, seccomp.KILL
DENIED, UNKNOWN = seccomp.ERRNO | errno.EPERM, seccomp.ERRNO | errno.ENOSYS
EVERY = ("always", "same_user", "truncating", "signalling")


def verdict(code: bytes, arch: int, number: int, *arguments: int) -> int:
    """What the kernel would answer to one call."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *(*arguments, *[0] * (6 - len(arguments))))
    steps = list(struct.iter_unpack("=HBBI", code))
    at = accumulator = 0
    while True:
        operation, if_true, if_false, k = steps[at]
        at += 1
        if operation == seccomp.LOAD:
            accumulator = struct.unpack_from("=I", data, k)[0]
        elif operation == seccomp.RETURN:
            return k
        else:
            holds = {
                seccomp.EQUAL: accumulator == k,
                seccomp.ABOVE: accumulator > k,
                seccomp.AT_LEAST: accumulator >= k,
                seccomp.ANY_BIT: bool(accumulator & k),
            }[operation]
            at += if_true if holds else if_false


@pytest.mark.parametrize(
    ("machine", "arch", "number", "arguments", "expected"),
    [
        ("x86_64", X86, 0, (), ALLOW),  # read
        ("x86_64", X86, 101, (), DENIED),  # ptrace
        ("x86_64", X86, 41, (), DENIED),  # socket
        ("x86_64", X86, 53, (), ALLOW),  # socketpair, which asyncio needs
        ("x86_64", X86, 425, (), DENIED),  # io_uring_setup
        ("x86_64", X86, 435, (), UNKNOWN),  # clone3
        ("x86_64", X86, 56, (0x01200011,), ALLOW),  # clone, as fork calls it
        ("x86_64", X86, 56, (0x10000000 | 17,), DENIED),  # clone into a new user namespace
        ("x86_64", X86, 16, (0, 0x5413), ALLOW),  # ioctl TIOCGWINSZ
        ("x86_64", X86, 16, (0, 0x5412), DENIED),  # ioctl TIOCSTI
        ("x86_64", X86, 16, (0, (1 << 32) | 0x5412), DENIED),  # the same: the kernel looks at the low half
        ("x86_64", X86, 302, (0, 7), ALLOW),  # prlimit64 of the caller
        ("x86_64", X86, 302, (1, 7), DENIED),  # ... and of process 1
        ("x86_64", X86, 9999, (), UNKNOWN),  # newer than the list
        ("x86_64", X86, 0x40000000, (), KILL),  # x32
        ("x86_64", 0x40000003, 11, (), KILL),  # i386
        ("aarch64", ARM, 63, (), ALLOW),  # read
        ("aarch64", ARM, 117, (), DENIED),  # ptrace
        ("aarch64", ARM, 198, (), DENIED),  # socket
        ("aarch64", ARM, 220, (0x10000000,), DENIED),  # clone into a new user namespace
        ("aarch64", X86, 63, (), KILL),
    ],
)
def test_a_call_has_the_expected_verdict(machine, arch, number, arguments, expected) -> None:
    for groups in (("always",), EVERY):
        assert verdict(seccomp.build(groups, machine), arch, number, *arguments) == expected


@pytest.mark.parametrize(("group", "number"), [("same_user", 90), ("truncating", 76), ("signalling", 62)])
def test_a_group_denies_its_own_calls(group: str, number: int) -> None:
    assert verdict(seccomp.build(("always",), "x86_64"), X86, number) == ALLOW
    assert verdict(seccomp.build(("always", group), "x86_64"), X86, number) == DENIED


def test_the_kernel_takes_programs_of_this_size() -> None:
    assert all(len(seccomp.build(EVERY, machine)) // 8 <= 4096 for machine in ("x86_64", "aarch64"))


def test_an_unknown_architecture_is_refused_by_name() -> None:
    assert not seccomp.known_architecture("riscv64")
    with pytest.raises(ResourceError, match="riscv64"):
        seccomp.build(machine="riscv64")
