"""What a program in a sandbox must not be able to do, tried for real.

The text of this file is run inside a sandbox (`puna.sandbox.probe`), with the standard library alone. Its argument is a
JSON object that says what to attack: files outside, a listening port and socket, a process of the host. It prints the
names of the attacks that succeeded as a JSON list. Outside a sandbox they succeed, which the tests check: an attack
that could not work proves nothing.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
import sys
from collections.abc import Callable
from typing import Any

KNOWN_VARIABLES = {"PATH", "LANG", "LC_CTYPE", "HOME", "TMPDIR", "PYTHONDONTWRITEBYTECODE"}
PTRACE_SEIZE, PTRACE_DETACH, PR_GET_NO_NEW_PRIVS, CLONE_NEWUSER = 0x4206, 17, 39, 0x10000000

libc = ctypes.CDLL(None, use_errno=True)


def read_home(target: dict[str, Any]) -> bool:
    with open(target["home"], "rb") as file:
        return bool(file.read())


def read_outside(target: dict[str, Any]) -> bool:
    with open(target["outside"], "rb") as file:
        return bool(file.read())


def list_outside(target: dict[str, Any]) -> bool:
    return bool(os.listdir(os.path.dirname(target["outside"])))


def write_outside(target: dict[str, Any]) -> bool:
    with open(target["outside"], "ab") as file:
        return bool(file.write(b"breached"))


def truncate_outside(target: dict[str, Any]) -> bool:
    os.truncate(target["outside"], 3)
    return True


def create_outside(target: dict[str, Any]) -> bool:
    with open(target["outside"] + ".new", "wb") as file:
        return file.write(b"breached") > 0


def link_outside(target: dict[str, Any]) -> bool:
    os.link(target["outside"], "stolen")
    os.unlink("stolen")
    return True


def change_mode_outside(target: dict[str, Any]) -> bool:
    os.chmod(target["outside"], 0o644)
    return True


def change_time_outside(target: dict[str, Any]) -> bool:
    os.utime(target["outside"], (1, 1))
    return True


def move_outside(target: dict[str, Any]) -> bool:
    os.rename(target["outside"], target["outside"] + ".moved")
    os.rename(target["outside"] + ".moved", target["outside"])
    return True


def write_system(target: dict[str, Any]) -> bool:
    del target
    os.close(os.open("/usr/puna-probe", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink("/usr/puna-probe")
    return True


def connect(target: dict[str, Any]) -> bool:
    with socket.create_connection(("127.0.0.1", target["port"]), timeout=2):
        return True


def send_datagram(target: dict[str, Any]) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        return opened.sendto(b"breached", ("127.0.0.1", target["port"])) > 0


def connect_to_a_socket_file(target: dict[str, Any]) -> bool:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.connect(target["socket"])
        return True


def signal_a_process(target: dict[str, Any]) -> bool:
    os.kill(target["process"], 0)
    return True


def see_a_process(target: dict[str, Any]) -> bool:
    with open(f"/proc/{target['process']}/cmdline", "rb") as file:
        return target["token"].encode() in file.read()


def trace_a_process(target: dict[str, Any]) -> bool:
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    seized = libc.ptrace(PTRACE_SEIZE, target["process"], None, None) == 0
    libc.ptrace(PTRACE_DETACH, target["process"], None, None)
    return seized


def limit_a_process(target: dict[str, Any]) -> bool:
    limits = resource.prlimit(target["process"], resource.RLIMIT_CORE)
    resource.prlimit(target["process"], resource.RLIMIT_CORE, limits)
    return True


def slow_a_process(target: dict[str, Any]) -> bool:
    os.setpriority(os.PRIO_PROCESS, target["process"], 5)
    return True


def make_a_user_namespace(target: dict[str, Any]) -> bool:
    del target
    child = os.fork()
    if child == 0:  # in a child, because one that succeeds is another user afterwards
        os._exit(0 if libc.unshare(CLONE_NEWUSER) == 0 else 1)
    return os.waitpid(child, 0)[1] == 0


def gain_privileges(target: dict[str, Any]) -> bool:
    """Whether a set-user-id program would still take effect, or capabilities are left."""
    del target
    header = ctypes.create_string_buffer((0x20080522).to_bytes(4, sys.byteorder) + bytes(4))
    sets = ctypes.create_string_buffer(24)
    held = libc.capget(header, sets) == 0 and any(sets.raw)
    return libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1 or held


def see_variables(target: dict[str, Any]) -> bool:
    del target
    return bool(os.environ.keys() - KNOWN_VARIABLES)


ATTACKS: tuple[Callable[[dict[str, Any]], bool], ...] = (
    read_home,
    read_outside,
    list_outside,
    write_outside,
    create_outside,
    link_outside,
    change_mode_outside,
    change_time_outside,
    move_outside,
    truncate_outside,
    write_system,
    connect,
    send_datagram,
    connect_to_a_socket_file,
    signal_a_process,
    see_a_process,
    trace_a_process,
    limit_a_process,
    slow_a_process,
    make_a_user_namespace,
    gain_privileges,
    see_variables,
)


def succeeded(target: dict[str, Any]) -> list[str]:
    """The names of the attacks that reached what they wanted."""
    names = []
    for attack in ATTACKS:
        try:
            reached = attack(target)
        except (OSError, ValueError):
            continue  # it was refused
        if reached:
            names.append(attack.__name__)
    return names


if __name__ == "__main__":
    print(json.dumps(succeeded(json.loads(sys.argv[1]))))
