"""The process that starts a program inside the sandbox, watches it, ends it, and reports.

Its text is handed to a fresh `python -I -S -c`, so it needs nothing but the standard library and no path of Puna's.
It reads a job (one line of JSON) from the control pipe and answers on the report pipe: the line "started PID" when the
program runs, and at its end one line of JSON. When the control pipe closes, because the parent wants an end or has
died, it ends the program. What a program cannot be stopped from by the kernel's limits on one process (memory, time
and number of all its processes, size of its folder) is measured every `PERIOD` seconds.

Left out: cgroups, which few unprivileged users may make. Between two measurements a program can exceed a limit by what
it takes in that time; the limits on single processes hold always.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys
import time
from typing import Any

PERIOD = 0.02
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_SECUREBITS, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 28, 36, 38, 47
LOCKED_SECUREBITS = 0x2F  # noroot, no_setuid_fixup and keep_caps_locked: user 0 has no powers of its own
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446  # the same numbers on every architecture
# Access rights of Landlock, by the version (ABI) that brought them: linux/landlock.h.
READ = 0b1101  # execute, read file, read folder
RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}
FILE_RIGHTS = 0xC007  # execute, write, read, truncate, ioctl: those that a single file can have
TCP, SCOPES = 0b11, 0b11  # bind and connect; abstract sockets and signals
PROGRAM_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores these, and what is ignored stays so in a program

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def syscall(*arguments: Any) -> int:
    return libc.syscall(*(ctypes.c_long(each) if isinstance(each, int) else each for each in arguments))


def landlock_abi() -> int:
    """The kernel's version of Landlock, 0 where there is none."""
    return max(0, syscall(LANDLOCK_CREATE, None, 0, 1))


def restrict_files(read: list[str], write: list[str]) -> None:
    """Leaves, of the whole file system, the paths `read` to be read and executed, and `write` to be changed."""
    abi = landlock_abi()
    handled = RIGHTS[min(abi, max(RIGHTS))]
    attributes = struct.pack("=QQQ", handled, TCP if abi >= 4 else 0, SCOPES if abi >= 6 else 0)
    attributes = attributes[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    rules = check(syscall(LANDLOCK_CREATE, ctypes.create_string_buffer(attributes), len(attributes), 0), "Landlock")
    for paths, rights in ((read, READ), (write, handled)):
        for path in paths:
            try:
                handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # what is not there needs no permission
            given = rights if os.path.isdir(path) else rights & FILE_RIGHTS
            rule = ctypes.create_string_buffer(struct.pack("=Qi", given & handled, handle))
            check(syscall(LANDLOCK_ADD, rules, 1, rule, 0), f"Landlock, {path}")
            os.close(handle)
    check(syscall(LANDLOCK_RESTRICT, rules, 0), "Landlock")
    os.close(rules)


def drop_powers(user: int | None) -> None:
    """No capabilities, now or by any later exec, and with `user` another user too."""
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # EPERM: not ours to drop; EINVAL: past the last one
    libc.prctl(PR_SET_SECUREBITS, LOCKED_SECUREBITS, 0, 0, 0)  # refused where there is nothing to lose
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    libc.prctl(PR_CAP_AMBIENT, 4, 0, 0, 0)
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
    check(libc.capset(header, ctypes.create_string_buffer(24)), "capset")
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def set_limits(limits: dict[str, Any]) -> None:
    cpu = int(limits["cpu_seconds"] + 0.999)
    mine = resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC
    processes = limits["processes"] + limits["processes_before"]
    values = cpu, limits["memory"], limits["file_bytes"], limits["open_files"], processes
    for kind, value in zip(mine, values, strict=True):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value + 1 if kind == resource.RLIMIT_CPU and hard < 0 else value))
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_MSGQUEUE):
        resource.setrlimit(kind, (0, 0))


def become_program(job: dict[str, Any], warden: int) -> None:
    """In the child: gives up everything, and becomes the program."""
    os.setpgid(0, 0)
    for number in PROGRAM_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    os.chdir(job["work"])
    set_limits(job["limits"])
    drop_powers(job["user"])
    # After the change of user, which would clear it.
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "parent death signal")
    if os.getppid() != warden:
        os._exit(1)
    if job["landlock"]:
        restrict_files(job["read"], job["write"])
    code = base64.b64decode(job["filter"])
    buffer = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))
    check(libc.prctl(PR_SET_SECCOMP, 2, program, 0, 0), "seccomp")
    try:
        os.execvpe(job["argv"][0], job["argv"], job["environment"])
    except OSError as error:  # the program's fault, told as a shell would
        os.write(2, f"{job['argv'][0]}: {error.strerror}\n".encode(errors="replace"))
        os._exit(127)


def start(job: dict[str, Any]) -> int:
    """The program's process id. Raises OSError with what refused if the program cannot be started."""
    told, tell = os.pipe()
    warden, child = os.getpid(), os.fork()
    if child == 0:
        try:
            os.close(told)
            become_program(job, warden)
        except BaseException as error:
            os.write(tell, f"{type(error).__name__}: {error}".encode())
        os._exit(127)
    os.close(tell)
    with open(told, "rb") as pipe:
        refusal = pipe.read()
    if refusal:
        os.waitpid(child, 0)
        raise OSError(refusal.decode(errors="replace"))
    return child


def children(pid: int) -> list[int]:
    """The children of a process, zombies too."""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    except (OSError, ValueError):
        return found  # it has just ended
    return found


def descendants(most: int) -> list[int]:
    """The processes below the warden, to which the kernel gives those whose own parent has died; it stops at `most`."""
    found = children(os.getpid())
    for pid in found:
        if len(found) > most:
            break  # while a program multiplies, every look at one process more gives it time for others
        found += children(pid)
    return found


def usage(pids: list[int]) -> tuple[int, int, float]:
    """(threads, bytes of anonymous and shared memory, seconds of CPU) of processes; ended ones count for the last."""
    threads = memory = ticks = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            with open(f"/proc/{pid}/status") as file:
                lines = dict(line.split(":", 1) for line in file if line.startswith(("RssAnon", "RssShmem", "VmSwap")))
        except (OSError, ValueError):
            continue
        ticks += sum(map(int, fields[11:15]))  # own and waited-for children's, user and system
        threads += int(fields[17])
        memory += 1024 * sum(int(value.split()[0]) for value in lines.values())
    return threads, memory, ticks / os.sysconf("SC_CLK_TCK")


def disk_use(job: dict[str, Any]) -> tuple[int, int]:
    """(bytes, files and folders) below the box."""
    if job["namespaces"]:
        held = os.statvfs(job["box"])
        return (held.f_blocks - held.f_bfree) * held.f_frsize, held.f_files - held.f_ffree
    size = count = 0
    for folder, folders, names in os.walk(job["box"]):
        for name in names:
            try:
                size += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except OSError:
                continue
        count += len(folders) + len(names)
        if count > 2 * job["limits"]["files"]:
            break
    return size, count


def exceeded(job: dict[str, Any], rounds: int) -> str:
    """The name of a limit that the processes together exceed, or ""."""
    limits = job["limits"]
    pids = descendants(limits["processes"])
    if len(pids) > limits["processes"]:
        return "processes"
    threads, memory, cpu = usage(pids)
    if threads > limits["processes"]:
        return "processes"
    if memory > limits["memory"]:
        return "memory"
    if cpu > limits["cpu_seconds"]:
        return "cpu"
    if rounds % 5 == 0:
        size, count = disk_use(job)
        # The box itself and its two folders count as files.
        if size > limits["disk"] or count > limits["files"] + 3:
            return "disk"
    return ""


def watch(job: dict[str, Any], child: int, control: int) -> str:
    """Returns when the program has ended: "" by itself, "stopped" by the parent, else the limit that it met."""
    handle = os.pidfd_open(child)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.register(control, select.POLLIN | select.POLLHUP)
    reason, rounds, parent = "", 0, job["parent"]
    while not reason:
        ready = dict(poll.poll(PERIOD * 1000))
        # Whoever else has the pipe's other end, such as a fork of the parent, the parent's death is an end too. It must
        # not be this process's own: outside a namespace, nothing would be left to end the program's children.
        if control in ready or os.getppid() != parent:
            reason = "stopped"
        elif handle in ready:
            break
        else:
            reason = exceeded(job, rounds)
            rounds += 1
    if reason:
        end(child)
    os.close(handle)
    return reason


def end(group: int) -> None:
    """Kills the program's whole process group, and then whatever has left it, until nothing is there."""
    for _ in range(500):
        with contextlib.suppress(OSError):  # the group may be empty, and a process may have just ended
            os.killpg(group, signal.SIGKILL)
        reap(group)
        below = descendants(most=1000)
        if not below:
            return
        for pid in below:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


STATUS: dict[int, Any] = {}


def reap(child: int) -> None:
    """Takes in every process that has ended; keeps how `child` did."""
    while True:
        try:
            pid, status, used = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == child:
            STATUS[child] = status, used


def collect(job: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """({path: content in base64}, why others are left out): what is new or changed in the work folder."""
    given, total = job["files"], 0
    found: dict[str, str] = {}
    left_out: list[str] = []
    for folder, folders, names in os.walk(job["work"]):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            shown = os.path.relpath(path, job["work"])
            try:
                shown.encode("utf-8")
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except (OSError, UnicodeEncodeError):
                left_out.append(f"{ascii(shown)[:200]}: a link, or a name or mode that cannot be read")
                continue
            with open(handle, "rb") as file:
                details = os.fstat(handle)
                if not (0o100000 <= details.st_mode < 0o110000) or total + details.st_size > job["limits"]["disk"]:
                    left_out.append(f"{shown[:200]}: not a plain file, or too large")
                    continue
                content = file.read()
            if content != given.get(shown):
                total += len(content)
                found[shown] = base64.b64encode(content).decode()
            if len(found) + len(left_out) > job["limits"]["files"]:
                return found, [*left_out[:100], "further files: too many"]
    return found, left_out[:100]


def lay_out(job: dict[str, Any]) -> None:
    """Makes the work folder and the files in it."""
    for folder in (job["work"], job["temporary"]):
        os.makedirs(folder, exist_ok=True)
    job["files"] = {os.path.normpath(name): base64.b64decode(text) for name, text in job["files"].items()}
    for name, content in job["files"].items():
        path = os.path.join(job["work"], name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    if job["user"] is not None:
        for folder, folders, names in os.walk(job["box"]):
            for name in [".", *folders, *names]:
                os.lchown(os.path.join(folder, name), job["user"], job["user"])


def main(control: int, report: int) -> None:
    os.umask(0o077)
    for handle in (control, report):
        os.set_inheritable(handle, False)
    with open(control, "rb", buffering=0, closefd=False) as pipe:
        line = b""
        while not line.endswith(b"\n"):
            piece = pipe.read(1 << 20)
            if not piece:
                os._exit(1)  # the parent has died, or changed its mind
            line += piece
    job = {**json.loads(line), "parent": os.getppid()}
    for option, value in ((PR_SET_CHILD_SUBREAPER, 1), (PR_SET_DUMPABLE, 0)):
        check(libc.prctl(option, value, 0, 0, 0), "prctl")
    answer: dict[str, Any] = {}
    try:
        lay_out(job)
        child = start(job)
        os.write(report, b"started %d\n" % child)
        for stream in (0, 1, 2):
            os.close(stream)  # the pipes belong to the program alone, and end with it
        begun = time.monotonic()
        answer["reason"] = watch(job, child, control)
        answer["seconds"] = time.monotonic() - begun
        reap(child)
        end(child)
        status, used = STATUS[child]
        answer["status"] = os.waitstatus_to_exitcode(status)
        total = resource.getrusage(resource.RUSAGE_CHILDREN)
        answer["cpu_seconds"] = total.ru_utime + total.ru_stime
        answer["memory"] = max(total.ru_maxrss, used.ru_maxrss) * 1024
        answer["files"], answer["left_out"] = collect(job)
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    with open(report, "wb", closefd=False) as pipe:
        pipe.write(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
