"""The machine: which device and number format to compute in, how much memory is used, how to name it in a report.

torch is imported inside the functions, because this floor is also used by commands that need no torch.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from puna.base.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16", "float64")


def resolve_device(name: str = "auto") -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU; any other name is torch's."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}.", hint="Use auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ResourceError("device is 'cuda', and torch sees no CUDA device.", hint="Use device auto or cpu.")
    return device


def resolve_dtype(name: str) -> torch.dtype:
    import torch

    if name not in DTYPES:
        raise ConfigError(f"dtype is {name!r}.", hint=f"Use one of {', '.join(DTYPES)}.")
    return getattr(torch, name)


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, else float32.

    A processor without bf16 instructions emulates them, which costs more than the saved memory traffic gains.
    """
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu" and cpu_has_bf16():
        return torch.bfloat16
    return torch.float32


def cpu_has_bf16() -> bool:
    """Whether this processor has AVX512-BF16 or AMX (x86), or BF16 matrix instructions (Arm, Linux)."""
    flags = _cpu_flags()
    return bool({"avx512_bf16", "amx_bf16", "bf16", "svebf16"} & flags)


_VM_HWM = re.compile(r"^VmHWM:\s*(\d+) kB", re.MULTILINE)


def _read(path: str) -> str:
    """A file of Linux's /proc, or "" on systems that have none."""
    file = Path(path)
    return file.read_text(errors="replace") if file.exists() else ""


def _cpu_flags() -> set[str]:
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return set(value.split())
    return set()


def usable_cpus() -> int:
    """How many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory instead of giving each large block back to the system.

    By default glibc maps every block above 32 MiB anew, and the kernel then zeroes its pages at each use: a training
    step spends a tenth of its time there. Returns whether the setting took; other systems are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    m_trim_threshold, m_mmap_max = -1, -4
    return bool(mallopt(m_mmap_max, 0) and mallopt(m_trim_threshold, 2**31 - 1))


def memory_used(device: torch.device | None = None) -> int:
    """Bytes: this process's resident memory, or what torch holds on a CUDA device."""
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.memory_reserved(device)
    if statm := _read("/proc/self/statm"):
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_memory()


def peak_memory(device: torch.device | None = None) -> int:
    """Bytes: the most that this process has ever had resident, or torch has ever held on a CUDA device."""
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.max_memory_reserved(device)
    # getrusage would count the process that started this one, which lives on in it until exec.
    if match := _VM_HWM.search(_read("/proc/self/status")):
        return int(match[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_memory(device: torch.device | None = None) -> int:
    """Bytes that could be taken without swapping, or that a CUDA device has left."""
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    if match := re.search(r"^MemAvailable:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE):
        return int(match[1]) * 1024
    # Other systems do not tell what could be freed; half of all memory is a careful guess.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def describe_machine() -> dict[str, str | int]:
    """What a report says of the hardware and the versions."""
    import torch

    described: dict[str, str | int] = {
        "cpu": _cpu_name(),
        "cpus": usable_cpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name()
    return described


def _cpu_name() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
