"""The parent's side: pipes that flood, stall or close, many runs at once, and an end in every case."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from puna.base.errors import InputError, ResourceError
from puna.sandbox import running
from puna.sandbox.probe import processes_with
from puna.sandbox.program import MIB, PYTHON, Limits, Program

WAIT = 60.0  # seconds: how long a test waits for what must happen on a busy machine, too


def eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_output_exit_code_and_files_come_back(run) -> None:
    code = """import os, sys
print('out', open('in/given').read()); print('err', file=sys.stderr)
os.mkdir('made'); open('made/file', 'wb').write(bytes(range(256)))
sys.exit(7)"""
    result = run(code, files={"in/given": b"text"})
    assert (result.stdout, result.stderr) == ("out text\n", "err\n")
    assert (result.reason, result.exit_code, result.signal, result.ok) == ("exited", 7, None, False)
    assert result.files == {"made/file": bytes(range(256))}
    assert not result.truncated
    assert result.memory > 5 * MIB


def test_the_environment_is_empty_but_for_what_is_given(run, monkeypatch) -> None:
    monkeypatch.setenv("PUNA_TEST_SECRET", "secret")
    result = run("import os; print(sorted(os.environ))", environment={"GIVEN": "1"})
    assert result.stdout.strip() == str(["GIVEN", "HOME", "LANG", "PATH", "PYTHONDONTWRITEBYTECODE", "TMPDIR"])


def test_home_and_temporary_folder_are_the_boxs_own(run) -> None:
    code = """import os, tempfile
assert os.path.expanduser('~') == os.getcwd()
with tempfile.NamedTemporaryFile('w') as file: file.write('x')
print(os.listdir())"""
    assert run(code).stdout == "[]\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_flood_of_output_is_cut_off_and_ends_the_program(run, stream: str) -> None:
    limits = Limits(output=100_000, seconds=60)
    result = run(f"import sys\nwhile True: sys.{stream}.write('x' * 9999)", limits=limits)
    assert result.reason == "output"
    assert result.truncated
    assert getattr(result, stream) == "x" * 100_000


def test_output_of_exactly_the_limit_is_whole(run) -> None:
    result = run("print('x' * 99_999)", limits=Limits(output=100_000))
    assert (result.reason, result.truncated, len(result.stdout)) == ("exited", False, 100_000)


def test_bytes_that_are_no_text_become_replacement_characters(run) -> None:
    code = r"import os; os.write(1, b'a\xff\xfe\x00\xed\xa0\x80\xf0\x9f\x98' + 'é🦙\u2028'.encode())"
    result = run(code)
    assert result.ok
    assert result.stdout.startswith("a\ufffd\ufffd\0")
    assert result.stdout.endswith("é🦙\u2028")


def test_a_large_input_arrives_whole(run) -> None:
    data = os.urandom(MIB) * 50
    result = run("import sys, zlib; print(zlib.crc32(sys.stdin.buffer.read()))", stdin=data)
    assert result.stdout.strip() == str(zlib.crc32(data))


def test_a_large_input_that_nobody_reads_stops_nothing(run) -> None:
    assert run("print('done')", stdin=bytes(50 * MIB)).stdout == "done\n"
    assert run("import os, sys; os.close(0); print('done')", stdin=bytes(50 * MIB)).stdout == "done\n"


def test_a_program_that_closes_its_streams_is_waited_for(run) -> None:
    code = "import os, time\nfor i in range(3): os.close(i)\ntime.sleep(0.3)\nopen('late', 'w').write('x')"
    assert run(code).files == {"late": b"x"}


def test_the_clock_ends_a_program_that_ignores_signals(run) -> None:
    code = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"
    )
    result = run(code, limits=Limits(seconds=1.0))
    assert (result.reason, result.exit_code, result.signal) == ("timeout", None, "SIGKILL")
    assert result.stdout == "up\n"
    assert result.seconds >= 1.0


def test_what_was_written_before_the_clock_ran_out_is_kept(run) -> None:
    code = "import time\nopen('early', 'w').write('x')\ntime.sleep(600)"
    assert run(code, limits=Limits(seconds=1.0)).files == {"early": b"x"}


def test_children_that_stay_behind_are_ended_with_the_program(run) -> None:
    token = secrets.token_hex(16)
    code = """import subprocess, sys
subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(600)', sys.argv[1]])
print('left')"""
    assert run(code, token).stdout == "left\n"
    assert processes_with(token) == []


def test_a_run_can_be_stopped_from_another_thread(sandbox) -> None:
    stop, token = threading.Event(), secrets.token_hex(16)
    program = Program((PYTHON, "-I", "-S", "-c", "import time; time.sleep(600)", token))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(sandbox.run, program, Limits(seconds=600), stop)
        assert eventually(lambda: processes_with(token))
        stop.set()
        result = future.result(WAIT)
    assert result.reason == "cancelled"
    assert processes_with(token) == []


def test_a_command_that_does_not_exist_is_told_as_a_shell_would(sandbox) -> None:
    result = sandbox.run(Program(("no-such-command",)))
    assert (result.reason, result.exit_code) == ("exited", 127)
    assert "no-such-command: No such file" in result.stderr


def test_fifty_runs_at_once_are_all_right_and_leave_nothing(sandbox, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    handles = len(list(Path("/proc/self/fd").iterdir()))
    token = secrets.token_hex(16)
    code = "import sys; open('f', 'w').write(sys.argv[1]); print(input())"

    def one(index: int) -> tuple[str, dict]:
        program = Program((PYTHON, "-I", "-S", "-c", code, f"{index}", token), stdin=b"%d" % index)
        result = sandbox.run(program, Limits(seconds=WAIT, cpu_seconds=WAIT))
        return result.stdout, dict(result.files)

    with ThreadPoolExecutor(50) as pool:
        results = list(pool.map(one, range(50)))
    assert results == [(f"{index}\n", {"f": b"%d" % index}) for index in range(50)]
    assert processes_with(token) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == handles
    assert list(tmp_path.iterdir()) == []


PARENT = """
import sys
from puna.sandbox.probe import LINGER, TIERS
from puna.sandbox.program import PYTHON, Limits, Program
(tier,) = [each for each in TIERS if each.name == sys.argv[1]]
tier.run(Program((PYTHON, "-I", "-S", "-c", LINGER, sys.argv[2])), Limits(seconds=600))
"""


def test_when_the_parent_is_killed_nothing_stays(sandbox) -> None:
    token = secrets.token_hex(16)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, sandbox.name, token])
    # The parent and the program have the token in their command lines; so has at least one child of the program.
    assert eventually(lambda: len(processes_with(token)) >= 3)
    parent.kill()
    parent.wait()
    assert eventually(lambda: not processes_with(token)), processes_with(token)


def test_more_files_than_the_limits_allow_are_refused_before_the_start() -> None:
    program = Program(("x",), files={"a": bytes(11), "b": b""})
    with pytest.raises(InputError, match="2 files of 11 bytes"):
        running.job(program, Limits(disk=10), "/box", b"")
    with pytest.raises(InputError, match="1 files"):
        running.job(program, Limits(files=1), "/box", b"")


@pytest.mark.parametrize("start", [["/no/such/program"], ["false"], ["sh", "-c", "echo broken >&2"]])
def test_a_tier_that_does_not_start_is_an_error_that_says_so(start: list[str]) -> None:
    with pytest.raises(ResourceError, match="sandbox"):
        running.carry_out(lambda _: start, {"namespaces": True}, b"", Limits())


def test_what_may_be_read_is_no_home_and_no_settings() -> None:
    paths = running.system_paths()
    assert "/usr" in paths
    assert not {"/", "/etc", "/home", "/root", "/var", "/tmp", str(Path.home())} & set(paths)
    assert Path(running.interpreter()).is_file()


def test_every_run_has_a_user_of_its_own() -> None:
    users = [running.spare_user() for _ in range(100)]
    assert len(set(users)) == 100
    assert min(users) > 1000
