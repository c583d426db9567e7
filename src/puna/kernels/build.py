"""Compiles csrc/ with the system's C++ compiler at first use, and loads the result with ctypes.

The library is kept in the user's cache under a name made of everything that shaped it: sources, compiler, flags, CPU.
Nothing here fails the caller: without a compiler, or where compiling or loading fails, `library()` is None, `status()`
says why, and the callers fall back to torch. No torch headers are included, so that compiling takes seconds.

`PUNA_KERNELS` chooses the instruction set (auto, avx512, avx2, neon, generic, off), `PUNA_CACHE` the cache folder, and
`CXX` the compiler. The library brings no threads where torch has OpenMP ones: it is handed the entry point of the very
runtime that libtorch is linked to, so that two pools never compete for the cores.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from puna.base.errors import BusyError, ConfigError, PunaError, near
from puna.base.files import atomic_write, folder_lock, hash_bytes, hash_folder, hash_json

VERSION = 1
CHOICES = ("auto", "avx512", "avx2", "neon", "generic", "off")
COMPILERS = ("c++", "g++", "clang++")
SOURCES = Path(__file__).with_name("csrc")
_COMMON = ("-std=c++17", "-O3", "-fno-math-errno", "-ffp-contract=off", "-fPIC", "-pthread", "-w")
_COMPILE_SECONDS = 300

# What the CPU must have for a choice, as /proc/cpuinfo names it, and what tells the compiler so.
_REQUIRED = {
    "avx512": {
        "avx512f": "-mavx512f",
        "avx512bw": "-mavx512bw",
        "avx512vl": "-mavx512vl",
        "avx512dq": "-mavx512dq",
        "avx512_vnni": "-mavx512vnni",
        "avx2": "-mavx2",
        "fma": "-mfma",
        "f16c": "-mf16c",
    },
    "avx2": {"avx2": "-mavx2", "fma": "-mfma", "f16c": "-mf16c"},
}
_OPTIONAL = {"avx512": {"avx512_bf16": "-mavx512bf16", "avx512vbmi": "-mavx512vbmi"}, "avx2": {}}

# Types of arguments: p pointer, i int, q int64, f float; what stands before the colon is returned (v nothing).
_SIGNATURES = {
    "bf16_linear": "v:pippqqqq",
    "int8_linear": "v:pippipqqqq",
    "fp8_linear": "v:pippiifpqqqq",
    "int4_linear": "v:pippiqpqqqq",
    "widen_int8": "v:pppiqqq",
    "widen_fp8": "v:ppipiqqq",
    "widen_int4": "v:ppiqpiqqq",
    "quantize_int8": "v:pippqqq",
    "quantize_fp8": "v:pifpipqqq",
    "rescale": "v:pipppiqqqqq",
    "read": "u:pqq",
    "rms_norm": "v:ppfpiqqq",
    "silu_mul": "v:pppiqq",
    "rotate": "v:ppppiqqqq",
    "causal_softmax": "v:pifqqqqq",
    "decode_attention": "q:piippppqqqqpppqqqqqqqq",
    "decode_layer": "q:pppp",
}
_TYPES = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int,
    "q": ctypes.c_int64,
    "f": ctypes.c_float,
    "u": ctypes.c_uint64,
    "v": None,
}


@dataclass(frozen=True, slots=True)
class KernelStatus:
    """Whether the compiled kernels are in use; if not, `reason` says why."""

    available: bool
    instruction_set: str
    reason: str
    path: Path | None


class Library:
    """The compiled functions, typed; they take addresses and sizes, and check nothing."""

    bf16_linear: Callable[..., None]
    int8_linear: Callable[..., None]
    fp8_linear: Callable[..., None]
    int4_linear: Callable[..., None]
    widen_int8: Callable[..., None]
    widen_fp8: Callable[..., None]
    widen_int4: Callable[..., None]
    quantize_int8: Callable[..., None]
    quantize_fp8: Callable[..., None]
    rescale: Callable[..., None]
    read: Callable[..., int]
    rms_norm: Callable[..., None]
    silu_mul: Callable[..., None]
    rotate: Callable[..., None]
    causal_softmax: Callable[..., None]
    decode_attention: Callable[..., int]
    decode_layer: Callable[..., int]

    def __init__(self, handle: ctypes.CDLL, path: Path) -> None:
        handle.puna_instruction_set.restype = ctypes.c_char_p
        self.path = path
        self.instruction_set: str = handle.puna_instruction_set().decode()
        for name, signature in _SIGNATURES.items():
            function = getattr(handle, f"puna_{name}")
            returned, _, arguments = signature.partition(":")
            function.argtypes = [_TYPES[letter] for letter in arguments]
            function.restype = _TYPES[returned]
            setattr(self, name, function)
        handle.puna_use_threads(_openmp_entry())


class _NotAvailableError(Exception):
    """Why there is no library; it never leaves this module."""


_lock = threading.Lock()
_outcome: tuple[Library | None, str] | None = None


def library() -> Library | None:
    """The compiled kernels; built and loaded at the first call, which may take some seconds, then remembered."""
    return (_outcome or _first())[0]


def status() -> KernelStatus:
    loaded, reason = _outcome or _first()
    if loaded is None:
        return KernelStatus(False, "torch", reason, None)
    return KernelStatus(True, loaded.instruction_set, "", loaded.path)


def _first() -> tuple[Library | None, str]:
    global _outcome
    with _lock:
        if _outcome is None:
            choice = _choice()
            try:
                _outcome = _obtain(choice), ""
            except (_NotAvailableError, PunaError, OSError) as error:
                _outcome = None, str(error).strip() or type(error).__name__
        return _outcome


def _choice() -> str:
    choice = os.environ.get("PUNA_KERNELS", "").strip().lower() or "auto"
    if choice not in CHOICES:
        raise ConfigError(f"The environment variable PUNA_KERNELS is {choice!r}.", hint=near(choice, CHOICES))
    return choice


def _obtain(choice: str) -> Library:
    """The library for `choice`: from the cache, or built."""
    if choice == "off":
        raise _NotAvailableError("switched off by PUNA_KERNELS=off")
    attempts = list(_flags(choice))
    compiler = _compiler()
    folder = cache_folder() / "kernels"
    failure = _NotAvailableError("nothing to try")
    for flags in attempts:
        path = folder / f"{_name(compiler, flags)}.so"
        try:
            return _load_kept(path) or _build(compiler, flags, path)
        except _NotAvailableError as error:
            failure = error
    raise failure


def cache_folder() -> Path:
    """`PUNA_CACHE`, or the folder where this system keeps a user's caches."""
    if chosen := os.environ.get("PUNA_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "puna"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "puna"


def _cpu() -> tuple[str, frozenset[str]]:
    """This processor's name and features; they are empty where the system does not tell."""
    name, features = platform.machine(), frozenset[str]()
    if sys.platform == "darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string", "machdep.cpu.features", "machdep.cpu.leaf7_features"]
        text = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        return f"{name} {text.partition(chr(10))[0]}", frozenset(text.lower().split())
    info = Path("/proc/cpuinfo")
    for line in info.read_text(errors="replace").splitlines() if info.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = f"{platform.machine()} {value.strip()}"
        elif key.strip().lower() in ("flags", "features"):
            features = frozenset(value.split())
            break
    return name, features


def _flags(choice: str) -> Iterator[tuple[str, ...]]:
    """Sets of compiler flags to try in turn."""
    arm = platform.machine().lower() in ("aarch64", "arm64")
    if choice == "generic":
        yield ("-DPUNA_GENERIC",)
    elif choice == "auto":
        yield ("-mcpu=native",) if arm else ("-march=native",)
        yield ()
    elif choice == "neon":
        if not arm:
            raise _NotAvailableError(f"PUNA_KERNELS=neon, and this CPU is {platform.machine()}")
        yield ("-mcpu=native",)
        yield ()
    else:
        features = _cpu()[1]
        if missing := sorted(_REQUIRED[choice].keys() - features):
            raise _NotAvailableError(f"PUNA_KERNELS={choice}, and this CPU has no {', '.join(missing)}")
        more = [flag for feature, flag in _OPTIONAL[choice].items() if feature in features]
        yield (*_REQUIRED[choice].values(), *more)


def _compiler() -> list[str]:
    """The command of the C++ compiler: `CXX`, or the first of the usual names."""
    chosen = shlex.split(os.environ.get("CXX", ""))
    for command in [chosen] if chosen else [[name] for name in COMPILERS]:
        if found := shutil.which(command[0]):
            return [found, *command[1:]]
    tried = chosen[0] if chosen else ", ".join(COMPILERS)
    raise _NotAvailableError(f"no C++ compiler was found (tried {tried}); install one, or set CXX")


def _name(compiler: list[str], flags: tuple[str, ...]) -> str:
    program = Path(compiler[0]).resolve()
    told = program.stat()
    identity = [compiler, str(program), told.st_size, told.st_mtime_ns, _COMMON, flags, VERSION]
    return hash_json([*identity, hash_folder(SOURCES), *map(sorted, _cpu()[1:]), _cpu()[0]])[:24]


def _load_kept(path: Path) -> Library | None:
    """The library at `path`, if it is whole: its hash stands beside it."""
    note = path.with_suffix(".sha256")
    try:
        if note.read_text(encoding="ascii").strip() != hash_bytes(path.read_bytes()):
            return None
        return _load(path)
    except (OSError, ValueError, _NotAvailableError):
        return None  # absent or damaged: it is built again


def _load(path: Path) -> Library:
    try:
        handle = ctypes.CDLL(str(path))
        if handle.puna_version() != VERSION:
            raise _NotAvailableError(f"{path} is of another version")
        return Library(handle, path)
    except (OSError, AttributeError) as error:
        raise _NotAvailableError(f"the compiled kernels cannot be loaded: {error}") from error


def _build(compiler: list[str], flags: tuple[str, ...], path: Path) -> Library:
    """Compiles into `path`; where the cache cannot be written, into a folder that goes when the library is loaded."""
    try:
        with folder_lock(path.parent, wait=_COMPILE_SECONDS):
            if kept := _load_kept(path):  # another process built it while this one waited
                return kept
            if sys.stderr.isatty():
                print("compiling Puna's kernels for this processor (once, half a minute) ...", file=sys.stderr)
            with tempfile.TemporaryDirectory() as folder:
                content = _compile(compiler, flags, Path(folder) / path.name).read_bytes()
            with atomic_write(path) as file:
                file.write(content)
            with atomic_write(path.with_suffix(".sha256")) as file:
                file.write(hash_bytes(content).encode("ascii"))
            return _load(path)
    except (OSError, BusyError):
        with tempfile.TemporaryDirectory() as folder:
            return _load(_compile(compiler, flags, Path(folder) / path.name))


def _compile(compiler: list[str], flags: tuple[str, ...], target: Path) -> Path:
    """Compiles the sources side by side and links them into `target`."""
    command = [*compiler, *_COMMON, *flags]
    sources = {source: target.with_name(f"{source.stem}.o") for source in sorted(SOURCES.glob("*.cpp"))}
    _run_all([[*command, "-c", str(source), "-o", str(object_)] for source, object_ in sources.items()])
    _run_all([[*command, "-shared", *map(str, sources.values()), "-o", str(target)]])
    if not target.exists():
        raise _NotAvailableError(f"the compiler {compiler[0]} ended well, and wrote nothing")
    return target


def _run_all(commands: list[list[str]]) -> None:
    running: list[tuple[list[str], subprocess.Popen[str]]] = []
    try:
        for command in commands:
            running.append((command, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)))
        for command, process in running:
            said = process.communicate(timeout=_COMPILE_SECONDS)[1].splitlines()
            if process.returncode != 0:
                errors = [line.strip() for line in said if "error" in line.lower()] or said
                message = errors[0] if errors else f"exit status {process.returncode}, without a message"
                raise _NotAvailableError(f"the compiler failed ({' '.join(command)}): {message}")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _NotAvailableError(f"the compiler {commands[0][0]} did not run: {error}") from error
    finally:
        for _, process in running:
            if process.poll() is None:
                process.kill()
            process.communicate()


def _openmp_entry() -> ctypes.c_void_p | None:
    """GOMP_parallel in the runtime that libtorch is linked to; None has the library keep threads of its own."""
    path = Path(torch.__file__).with_name("lib") / (
        "libtorch_cpu.dylib" if sys.platform == "darwin" else "libtorch_cpu.so"
    )
    try:
        return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p)
    except (OSError, AttributeError):
        return None
