from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from puna.base import device
from puna.base.device import (
    DTYPES,
    describe_machine,
    fast_dtype,
    memory_used,
    peak_memory,
    resolve_device,
    resolve_dtype,
    usable_cpus,
)
from puna.base.errors import ConfigError, ResourceError


def test_auto_takes_what_is_there() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device().type == resolve_device("auto").type == expected
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cpu:", "CUDA"])
def test_an_unknown_device_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device is '{name}'"):
        resolve_device(name)


def test_a_device_that_is_not_there_is_a_resource_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ResourceError, match="no CUDA device"):
        resolve_device("cuda:0")


def test_number_formats_are_torchs() -> None:
    assert [resolve_dtype(name) for name in DTYPES] == [getattr(torch, name) for name in DTYPES]
    for name in ("half", "int8", "nn"):
        with pytest.raises(ConfigError, match=f"dtype is '{name}'"):
            resolve_dtype(name)


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ({"sse2", "avx2", "avx512f"}, torch.float32),
        ({"avx512_bf16"}, torch.bfloat16),
        ({"amx_bf16", "amx_tile"}, torch.bfloat16),
        ({"asimd", "bf16"}, torch.bfloat16),
        (set(), torch.float32),
    ],
)
def test_bfloat16_is_fast_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(device, "_cpu_flags", lambda: flags)
    assert fast_dtype(torch.device("cpu")) == dtype


def test_only_usable_processors_are_counted() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system does not bind processes to processors")
    code = (
        "import os; from puna.base.device import usable_cpus; "
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); print(usable_cpus())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
    assert usable_cpus() >= 1


MEMORY = """
import json, sys
from puna.base.device import keep_freed_memory, memory_used, peak_memory
took = keep_freed_memory() if sys.argv[1] == "keep" else None
before, peak_before = memory_used(), peak_memory()
block = bytearray(b"x") * 100_000_000
during = memory_used()
del block
after, peak_after = memory_used(), peak_memory()
print(json.dumps([took, *(n / 1e6 for n in (during - before, after - before, peak_after - peak_before))]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it measures Linux's resident memory")
def test_memory_is_counted_and_kept_when_asked() -> None:
    def measure(mode: str) -> list[float]:
        run = subprocess.run([sys.executable, "-c", MEMORY, mode], capture_output=True, text=True, check=True)
        return json.loads(run.stdout)

    _, during, after, peak = measure("plain")
    assert 95 < during < 110
    assert after < 5
    assert 90 < peak < 110
    took, during, after, _ = measure("keep")
    if took:
        assert 95 < during < 110
        assert after > 95, "glibc keeps what was freed"


def test_the_peak_is_at_least_what_is_used() -> None:
    assert 0 < memory_used() <= peak_memory() * 1.05
    assert memory_used(torch.device("cpu")) > 0


def test_a_machine_is_described_in_json() -> None:
    described = describe_machine()
    assert {"cpu", "cpus", "system", "python", "torch"} <= described.keys()
    assert described["torch"] == torch.__version__
    assert json.loads(json.dumps(described)) == described
