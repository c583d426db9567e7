"""Building, caching and falling back, each in a process of its own; and all of this room's tests for every choice."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from puna.base.errors import ConfigError
from puna.kernels import build

ROOM = Path(__file__).parent
COMPILER = next((found for name in build.COMPILERS if (found := shutil.which(name))), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")

STATE = """
import json, torch
from puna.kernels.build import status
from puna.kernels.linear import bf16_linear
state = status()
x, w = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3).bfloat16()
assert torch.allclose(bf16_linear(x, w), x @ w.float().T)
print(json.dumps([state.available, state.instruction_set, state.reason, str(state.path)]))
"""


def python(code: str, *arguments: str, **environment: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {k: str(v) for k, v in environment.items()},
    )


def state(**environment: str | Path) -> tuple[bool, str, str, Path]:
    """What a fresh process says of its kernels, after multiplying with them."""
    done = python(STATE, **environment)
    assert done.returncode == 0, done.stderr
    available, instruction_set, reason, path = json.loads(done.stdout.splitlines()[-1])
    return available, instruction_set, reason, Path(path)


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real compiler without its optimiser, which takes most of the time; it counts its runs in a file beside it."""
    if COMPILER is None:
        pytest.skip("there is no C++ compiler")
    script = tmp_path_factory.mktemp("compiler") / "hasty"
    real = f'exec "{COMPILER}" "$@" -O0'
    script.write_text(f'#!/bin/sh\ncase "$*" in *-shared*) echo run >> "$0.runs";; esac\n{real}\n')
    script.chmod(0o755)
    return script


def runs(script: Path) -> int:
    counted = script.with_name(script.name + ".runs")
    return len(counted.read_text().splitlines()) if counted.exists() else 0


# Falling back ---------------------------------------------------------------------------------------------------------


def test_off_says_so() -> None:
    assert state(PUNA_KERNELS="off") == (False, "torch", "switched off by PUNA_KERNELS=off", Path("None"))


def test_a_compiler_that_fails_is_named_and_torch_takes_over(tmp_path: Path) -> None:
    false = shutil.which("false") or "/bin/false"
    available, instruction_set, reason, _ = state(PUNA_CACHE=tmp_path, CXX=false)
    assert not available
    assert instruction_set == "torch"
    assert "false" in reason
    assert not list((tmp_path / "kernels").glob("*.so"))


def test_a_compiler_s_own_words_are_passed_on(tmp_path: Path) -> None:
    script = tmp_path / "cxx"
    script.write_text("#!/bin/sh\necho 'note: hello' >&2\necho 'x.cpp: error: no such virtue' >&2\nexit 1\n")
    script.chmod(0o755)
    available, _, reason, _ = state(PUNA_CACHE=tmp_path, CXX=script)
    assert not available
    assert reason.endswith("x.cpp: error: no such virtue")


def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    available, _, reason, _ = state(PUNA_CACHE=tmp_path, CXX="no-such-compiler -O9")
    assert not available
    assert "no-such-compiler" in reason
    assert "set CXX" in reason
    available, _, reason, _ = state(PUNA_CACHE=tmp_path, PATH=tmp_path, CXX="")
    assert not available
    assert "c++, g++, clang++" in reason


@pytest.mark.skipif(platform.machine() != "x86_64", reason="this processor may have it")
def test_an_instruction_set_of_another_processor_is_not_tried(tmp_path: Path) -> None:
    available, _, reason, _ = state(PUNA_CACHE=tmp_path, PUNA_KERNELS="neon")
    assert not available
    assert "x86_64" in reason


def test_a_missing_feature_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = build._REQUIRED["avx512"].keys() | build._REQUIRED["avx2"].keys()
    assert wanted >= {"avx512_vnni", "fma"}
    assert set(build._REQUIRED["avx2"]) <= set(build._REQUIRED["avx512"])
    if not build._REQUIRED["avx512"].keys() <= build._cpu()[1]:
        with pytest.raises(build._NotAvailableError, match="this CPU has no avx512"):
            list(build._flags("avx512"))


def test_an_unknown_choice_is_an_error_with_the_near_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUNA_KERNELS", "avx521")
    with pytest.raises(ConfigError, match="avx521") as caught:
        build._choice()
    assert "avx512" in caught.value.hint
    monkeypatch.setenv("PUNA_KERNELS", " Generic ")
    assert build._choice() == "generic"
    monkeypatch.delenv("PUNA_KERNELS")
    assert build._choice() == "auto"


# The cache ------------------------------------------------------------------------------------------------------------


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PUNA_CACHE", str(tmp_path / "here"))
    assert build.cache_folder() == tmp_path / "here"
    monkeypatch.delenv("PUNA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.cache_folder().name == "puna"
    if sys.platform == "linux":
        assert build.cache_folder() == tmp_path / "puna"


def test_the_second_process_loads_what_the_first_built(tmp_path: Path, hasty: Path) -> None:
    before = runs(hasty)
    first, second = (state(PUNA_CACHE=tmp_path, CXX=hasty) for _ in range(2))
    assert first == second
    assert first[0]
    assert first[3].parent == tmp_path / "kernels"
    assert runs(hasty) == before + 1
    assert not state(PUNA_CACHE=tmp_path, CXX=hasty, PUNA_KERNELS="generic")[1].startswith("avx")
    assert runs(hasty) == before + 2  # other flags, another library


def test_two_processes_may_build_at_once(tmp_path: Path, hasty: Path) -> None:
    before = runs(hasty)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: state(PUNA_CACHE=tmp_path, CXX=hasty), range(2))
    assert first == second
    assert first[0]
    assert runs(hasty) == before + 1
    names = {path.name for path in (tmp_path / "kernels").iterdir()}
    assert names == {first[3].name, first[3].with_suffix(".sha256").name, ".lock"}


def test_a_damaged_library_is_built_again(tmp_path: Path, hasty: Path) -> None:
    path = state(PUNA_CACHE=tmp_path, CXX=hasty)[3]
    whole, before = path.read_bytes(), runs(hasty)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert state(PUNA_CACHE=tmp_path, CXX=hasty)[0]
    assert len(path.read_bytes()) == len(whole)
    path.write_bytes(whole[:1000])
    path.with_suffix(".sha256").unlink()
    assert state(PUNA_CACHE=tmp_path, CXX=hasty)[0]
    assert runs(hasty) == before + 2


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, hasty: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    available, _, _, path = state(PUNA_CACHE=tmp_path / "file", CXX=hasty)
    assert available
    assert not path.exists()  # the temporary library went when it was loaded


# Threads --------------------------------------------------------------------------------------------------------------

ONE_RUNTIME = """
import torch
from pathlib import Path
torch.set_num_threads(2)
from puna.kernels.build import library
from puna.kernels.linear import bf16_linear
x, w = torch.randn(1, 2048), torch.randn(512, 2048).bfloat16()
torch.randn(512, 512) @ torch.randn(512, 512)
tasks = lambda: len(list(Path("/proc/self/task").iterdir()))
before = tasks()
bf16_linear(x, w)
assert library() is not None
maps = Path("/proc/self/maps").read_text().split()
print(len({name for name in maps if "gomp" in name or "libomp" in name or "iomp" in name}), tasks() - before)
"""


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_threads_are_those_of_torch() -> None:
    done = python(ONE_RUNTIME, OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "0"]


OWN_POOL = """
import ctypes, os, threading, torch
from puna.kernels.build import status
from puna.kernels.linear import bf16_linear
handle = ctypes.CDLL(str(status().path))
w = torch.randn(999, 640).bfloat16()
xs = [torch.randn(3, 640) for _ in range(4)]
expected = [bf16_linear(x, w) for x in xs]
handle.puna_use_threads(None)
torch.set_num_threads(3)
def work(i):
    for _ in range(100):
        assert torch.equal(bf16_linear(xs[i], w), expected[i])
    done.append(i)
done = []
threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(done) == 4
child = os.fork()
if child == 0:
    work(0)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
torch.set_num_threads(6)
work(1)
print("all right")
"""


@needs_compiler
def test_the_pool_of_our_own_serves_many_callers_and_forked_children() -> None:
    done = python(OWN_POOL)
    assert done.stdout.strip() == "all right", done.stderr


# Memory ---------------------------------------------------------------------------------------------------------------

AT_THE_END = """
import ctypes, mmap, sys, torch
from puna.kernels.attention import decode_attention
from puna.kernels.linear import bf16_linear, fp8_linear, int4_linear, int8_linear
libc, page = ctypes.CDLL(None, use_errno=True), mmap.PAGESIZE
kept = []
def last(tensor):
    '''A copy whose last byte is the last before a page that must not be touched.'''
    size = tensor.numel() * tensor.element_size()
    whole = -(-size // page) * page
    memory = mmap.mmap(-1, whole + page)
    kept.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert libc.mprotect(ctypes.c_void_p(start + whole), page, 0) == 0
    out = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=whole - size)
    return out.copy_(tensor.flatten()).view(tensor.shape)
for N, K in ((3, 33), (5, 96), (4, 130)):
    codes = torch.randint(-127, 120, (N, K)).to(torch.int8)
    for M in (1, 2, 5, 70):
        for dtype in (torch.float32, torch.bfloat16):
            x, scale, blocks = last(torch.randn(M, K).to(dtype)), last(torch.rand(N)), last(torch.rand(1, -(-K // 128)))
            bf16_linear(x, last(torch.randn(N, K).bfloat16()))
            for rounds in (False, True):
                int8_linear(x, last(codes), scale, quantize_activations=rounds)
                for s in (scale, blocks):
                    fp8_linear(x, last(codes).view(torch.float8_e4m3fn), s, quantize_activations=rounds)
            if K % 32 == 0:
                packed = last(torch.zeros(N, K // 8, dtype=torch.int32))
                for group in (32, 96):
                    int4_linear(x, packed, last(torch.rand(N, K // group).to(dtype)))
for K in (2, 6, 48, 64):
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        k, v = (last(torch.ones(3, 2, 5, K).to(dtype)) for _ in range(2))
        scales = [last(torch.ones(3, 2, 5)) for _ in range(2)] if dtype == torch.int8 else []
        q, table, lengths = last(torch.ones(2, 4, K)), last(torch.tensor([[0, 1], [2, -1]]).int()), torch.tensor([9, 5])
        decode_attention(q, k, v, table, last(lengths), *scales)
print("all right")
"""


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="protects pages by a call of Linux")
@pytest.mark.parametrize("choice", ["auto", "generic"])
def test_nothing_beyond_the_end_is_read(choice: str) -> None:
    done = python(AT_THE_END, PUNA_KERNELS=choice)
    assert done.stdout.strip() == "all right", f"{done.returncode} {done.stderr}"


# Every choice ---------------------------------------------------------------------------------------------------------


def choices() -> list[str]:
    """What this processor can run beside the best, which the other files test here."""
    features = build._cpu()[1]
    x86 = [name for name in ("avx512", "avx2") if build._REQUIRED[name].keys() <= features]
    best = "avx512" if "avx512" in x86 else "avx2" if x86 else ""
    return [*(name for name in x86 if name != best), "generic", "off"]


@pytest.mark.slow
@pytest.mark.parametrize("choice", choices())
def test_the_room_s_tests_pass_for(choice: str) -> None:
    if choice != "off" and COMPILER is None:
        pytest.skip("there is no C++ compiler")
    files = [str(ROOM / f"test_{name}.py") for name in ("linear", "attention", "elementwise", "layer")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PUNA_KERNELS": choice}
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert done.stdout.count(".") > 200  # the dots of what passed
    got = state(PUNA_KERNELS=choice)
    assert got[:2] == ((False, "torch") if choice == "off" else (True, choice))
