"""Progress of long work: a live bar on a terminal, plain lines elsewhere, and one JSON line per event in a file.

Work reports to a `Progress` and does not know who watches. The file is the truth: plots and reports read
`metrics.jsonl`, never the screen.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from puna.base.errors import storage_errors
from puna.base.files import read_jsonl, write_jsonl


class Task(Protocol):
    """One bar."""

    def advance(self, amount: float = 1, **values: Any) -> None:
        """Moves the bar on and shows `values` (numbers or text) beside it."""
        ...


class Progress(Protocol):
    """Where work reports to."""

    @contextmanager
    def task(self, name: str, total: float | None, unit: str = "", done: float = 0) -> Iterator[Task]:
        """A bar from `done` to `total` in `unit`; `total` None where nobody knows it."""
        ...

    def say(self, text: str) -> None:
        """One line that stays."""
        ...


class _SilentTask:
    def advance(self, amount: float = 1, **values: Any) -> None:
        del amount, values


class Silent:
    """Shows nothing; for library use."""

    @contextmanager
    def task(self, name: str, total: float | None, unit: str = "", done: float = 0) -> Iterator[Task]:
        del name, total, unit, done
        yield _SilentTask()

    def say(self, text: str) -> None:
        del text


class Lines:
    """Plain lines, at most one every `every` seconds for each task: for logs and pipes."""

    def __init__(self, stream: IO[str] | None = None, every: float = 15.0) -> None:
        self.stream = stream or sys.stderr
        self.every = every

    @contextmanager
    def task(self, name: str, total: float | None, unit: str = "", done: float = 0) -> Iterator[Task]:
        task = _LineTask(self, name, total, unit, done)
        yield task
        task.show()

    def say(self, text: str) -> None:
        print(text, file=self.stream, flush=True)


class _LineTask:
    def __init__(self, lines: Lines, name: str, total: float | None, unit: str, done: float) -> None:
        self.lines, self.name, self.total, self.unit = lines, name, total, unit
        self.first = self.done = done
        self.values: Mapping[str, Any] = {}
        self.started = self.shown = time.monotonic()

    def advance(self, amount: float = 1, **values: Any) -> None:
        self.done += amount
        self.values = values or self.values
        if time.monotonic() - self.shown >= self.lines.every:
            self.show()

    def show(self) -> None:
        self.shown = time.monotonic()
        seconds = self.shown - self.started
        rate = (self.done - self.first) / seconds if seconds > 0 else 0.0
        share = f" of {self.total:,.0f}" if self.total else ""
        parts = [f"{self.done:,.0f}{share} {self.unit}".rstrip()]
        parts += [f"{key} {format_value(value)}" for key, value in self.values.items()]
        parts.append(format_seconds(seconds))
        if self.total and self.done < self.total and rate > 0:
            parts.append(f"{format_seconds((self.total - self.done) / rate)} left")
        self.lines.say(f"{self.name}: {', '.join(parts)}")


class Bars:
    """Live bars of rich, on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.console = Console(stderr=True)
        self._bars: Callable[[], Any] = lambda: RichProgress(
            TextColumn("[bold]{task.description:<14}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
            console=self.console,
        )

    @contextmanager
    def task(self, name: str, total: float | None, unit: str = "", done: float = 0) -> Iterator[Task]:
        with self._bars() as bars:
            bar = bars.add_task(name, total=total, completed=done, values=unit)
            yield _BarTask(bars, bar, unit)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)


class _BarTask:
    def __init__(self, bars: Any, bar: Any, unit: str) -> None:
        self.bars, self.bar, self.unit = bars, bar, unit

    def advance(self, amount: float = 1, **values: Any) -> None:
        shown = "  ".join(f"{key} {format_value(value)}" for key, value in values.items())
        self.bars.update(self.bar, advance=amount, **({"values": shown} if shown else {}))


def for_terminal(quiet: bool = False) -> Progress:
    """Bars where standard error is a terminal, plain lines where it is not, nothing where `quiet`."""
    if quiet:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()


class MetricsLog:
    """Appends one JSON object a line. A line that a killed process left unfinished is cut off on opening."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                self._cut_unfinished_line()

    def write(self, **values: Any) -> None:
        with storage_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def read(self) -> list[dict[str, Any]]:
        return list(read_jsonl(self.path)) if self.path.exists() else []

    def keep(self, predicate: Callable[[dict[str, Any]], bool]) -> None:
        """Drops the rows for which `predicate(row)` is false: a resumed stage writes its lost steps again."""
        rows = self.read()
        kept = [row for row in rows if predicate(row)]
        if len(kept) < len(rows):
            write_jsonl(self.path, kept)

    def _cut_unfinished_line(self) -> None:
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            with self.path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)


def format_seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def format_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
