from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base import progress
from puna.base.errors import ArtifactError
from puna.base.progress import Bars, Lines, MetricsLog, Silent, for_terminal, format_seconds, format_value


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


def test_lines_come_at_most_every_so_often_and_once_at_the_end(clock: Clock) -> None:
    stream = io.StringIO()
    with Lines(stream, every=15).task("train", 100, "steps") as bar:
        for step in range(100):
            clock.now += 1
            bar.advance(1, loss=1 / (step + 1))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 100 // 15 + 1
    assert lines[0] == "train: 15 of 100 steps, loss 0.06667, 15 s, 1 min 25 s left"
    assert lines[-1] == "train: 100 of 100 steps, loss 0.01, 1 min 40 s"


def test_the_time_left_counts_only_what_was_done_here(clock: Clock) -> None:
    stream = io.StringIO()
    with Lines(stream, every=10).task("train", 100, "steps", done=80) as bar:
        clock.now += 10
        bar.advance(10)
    assert stream.getvalue().splitlines()[0] == "train: 90 of 100 steps, 10 s, 10 s left"


@pytest.mark.parametrize(
    ("total", "unit", "done", "line"),
    [
        (None, "files", 2, "read: 2 files, 0 s"),
        (None, "", 2, "read: 2, 0 s"),
        (3, "", 2, "read: 2 of 3, 0 s"),
        (3, "files", 5, "read: 5 of 3 files, 0 s"),
        (0, "files", 0, "read: 0 files, 0 s"),
        (2_000_000, "tokens", 1_000_000, "read: 1,000,000 of 2,000,000 tokens, 0 s"),
    ],
)
@pytest.mark.usefixtures("clock")
def test_a_line_reads_well_without_a_total_or_a_unit(total: float | None, unit: str, done: int, line: str) -> None:
    stream = io.StringIO()
    with Lines(stream).task("read", total, unit) as bar:
        bar.advance(done)
    assert stream.getvalue() == line + "\n"


def test_a_line_stays_whatever_watches(capsys: pytest.CaptureFixture[str]) -> None:
    for watcher in (Lines(), Bars()):
        watcher.say("[red]Read 3 files[/red]: a/b")
    assert capsys.readouterr().err == "[red]Read 3 files[/red]: a/b\n" * 2


def test_bars_show_name_and_values(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    with Bars().task("pretrain", 10, "steps", done=5) as bar:
        bar.advance(5, loss=2.5, note="fine")
    shown = capsys.readouterr().err
    assert "pretrain" in shown
    assert "100%" in shown
    assert "loss 2.5  note fine" in shown


def test_the_watcher_suits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert isinstance(for_terminal(), Bars)
    assert isinstance(for_terminal(quiet=True), Silent)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert isinstance(for_terminal(), Lines)


def test_silence_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Silent().task("a", 1) as bar:
        bar.advance(1, loss=1.0)
    Silent().say("a")
    assert capsys.readouterr() == ("", "")


rows = st.lists(
    st.dictionaries(
        st.text(min_size=1), st.integers() | st.floats(allow_nan=False) | st.text() | st.booleans(), max_size=3
    ),
    max_size=5,
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metrics")


@given(written=rows, cut=st.integers(1, 50))
def test_an_unfinished_line_is_cut_off_and_the_rest_kept(
    scratch: Path, written: list[dict[str, Any]], cut: int
) -> None:
    path = scratch / "metrics.jsonl"
    path.unlink(missing_ok=True)
    log = MetricsLog(path)
    for row in written:
        log.write(**row)
    assert log.read() == written
    data = path.read_bytes() if written else b""
    path.write_bytes(data[: max(0, len(data) - cut)])
    whole = data[: max(0, len(data) - cut)].count(b"\n")
    reopened = MetricsLog(path)
    assert reopened.read() == written[:whole]
    reopened.write(step=1)
    assert reopened.read() == [*written[:whole], {"step": 1}]


@given(written=rows)
def test_rows_that_are_kept_stay_as_they_were(scratch: Path, written: list[dict[str, Any]]) -> None:
    path = scratch / "kept.jsonl"
    path.unlink(missing_ok=True)
    log = MetricsLog(path)
    numbered = [{**row, "step": number} for number, row in enumerate(written)]
    for row in numbered:
        log.write(**row)
    log.keep(lambda row: row["step"] % 2 == 0)
    assert log.read() == numbered[::2]
    log.write(step=99)
    assert log.read() == [*numbered[::2], {"step": 99}]


def test_a_log_that_holds_all_is_not_written_anew(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "a" / "metrics.jsonl")
    assert log.read() == []
    log.write(step=1)
    before = log.path.stat().st_ino
    log.keep(lambda row: True)
    assert log.path.stat().st_ino == before


def test_a_loss_that_is_no_number_can_be_logged(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(loss=float("nan"))
    assert str(log.read()[0]["loss"]) == "nan"


def test_damage_in_the_middle_is_an_artifact_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(ArtifactError, match="line 2"):
        MetricsLog(path).read()


def test_each_row_is_one_line_of_json(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(text="a\nb\u2028c\x85d", n=1)
    (line,) = log.path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {"text": "a\nb\u2028c\x85d", "n": 1}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (7260, "2 h 01 min")]
)
def test_seconds_are_shown_in_two_units(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1,234"), (0.123456, "0.1235"), (1234567, "1,234,567"), ("a", "a"), (-2000.0, "-2,000")],
)
def test_values_are_short(value: Any, text: str) -> None:
    assert format_value(value) == text
