"""The system calls that a program in a sandbox may not make, as a seccomp filter (classic BPF).

A list of what is denied, not of what is allowed: the code to run is any Python program, and an allow-list would break
with every new libc. What reaches other processes, the kernel's own state, namespaces, sockets, or memory that no limit
counts is denied, and so is every call that is newer than this list. A denied call fails with EPERM, so that the
program can say what it missed; calls of another architecture (32-bit, x32), which would go round the list, kill it.
The numbers are data: `assets/syscalls.json`.
"""

from __future__ import annotations

import errno
import functools
import json
import platform
import struct
from importlib.resources import files
from typing import Any

from puna.base.errors import ResourceError

LOAD, EQUAL, ABOVE, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06  # linux/bpf_common.h
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # linux/seccomp.h
NUMBER, ARCH, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; an argument has 8 bytes, the low half first
X32 = 0x40000000
NEW_NAMESPACES = 0x7E020080  # all CLONE_NEW* flags of clone(2)
PUSHED_INPUT = (0x5412, 0x541C)  # ioctls TIOCSTI and TIOCLINUX, which type into the terminal of the host


@functools.cache
def _table() -> dict[str, Any]:
    return json.loads(files("puna.sandbox").joinpath("assets/syscalls.json").read_text(encoding="utf-8"))


def known_architecture(machine: str = "") -> bool:
    return (machine or platform.machine()) in _table()["audit_arch"]


def build(groups: tuple[str, ...] = ("always",), machine: str = "") -> bytes:
    """The filter, as an array of `struct sock_filter`.

    Args:
        groups: of `assets/syscalls.json`: "always"; "same_user" for programs that share their user with others, whose
            files and processes they could otherwise change without opening them; "truncating" where Landlock does not
            yet guard truncate(2) (before Linux 6.2); "signalling" where it does not yet guard signals (before 6.12).

    Raises:
        ResourceError: an architecture whose numbers are not known.
    """
    machine = machine or platform.machine()
    table = _table()
    if machine not in table["audit_arch"]:
        raise ResourceError(
            f"The sandbox has no list of system calls for the architecture {machine!r}.",
            hint=f"It knows {', '.join(table['audit_arch'])}.",
        )
    calls = table["syscalls"][machine]
    code = [_step(LOAD, ARCH), _step(EQUAL, table["audit_arch"][machine], 1, 0), _step(RETURN, KILL)]
    code += [_step(LOAD, NUMBER), *_when(AT_LEAST, X32, KILL), *_when(ABOVE, table["newest"], ERRNO | errno.ENOSYS)]
    for group in groups:
        for number in calls[group].values():
            code += _when(EQUAL, number, ERRNO | errno.EPERM)
    special = calls["special"]
    # glibc takes clone where there is no clone3, whose flags lie in memory that a filter cannot read.
    code += _when(EQUAL, special["clone3"], ERRNO | errno.ENOSYS)
    code += _argument(special["clone"], 0, _when(ANY_BIT, NEW_NAMESPACES, ERRNO | errno.EPERM))
    code += _argument(
        special["ioctl"], 1, [s for each in PUSHED_INPUT for s in _when(EQUAL, each, ERRNO | errno.EPERM)]
    )
    # Limits of another process of the same user could be lowered until it dies; 0 is the caller itself.
    code += _argument(special["prlimit64"], 0, [_step(EQUAL, 0, 1, 0), _step(RETURN, ERRNO | errno.EPERM)])
    return b"".join([*code, _step(RETURN, ALLOW)])


def _step(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, k)


def _when(comparison: int, k: int, verdict: int) -> list[bytes]:
    return [_step(comparison, k, 0, 1), _step(RETURN, verdict)]


def _argument(number: int, index: int, checks: list[bytes]) -> list[bytes]:
    """`checks` on the low half of an argument of the call `number`; the number is loaded again after them."""
    body = [_step(LOAD, ARGUMENTS + 8 * index), *checks, _step(LOAD, NUMBER)]
    return [_step(EQUAL, number, 0, len(body)), *body]
