"""The stage runner with stages of a line each."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from puna.base.errors import ArtifactError, ConfigError, StorageError
from puna.base.progress import Silent
from puna.recipes.runner import Runner, Stage, StageContext, read_lineage


@dataclass(frozen=True, slots=True)
class Setting:
    text: str = "a"


Work = Callable[[StageContext], Mapping[str, Any]]


def write(name: str, text: str) -> Work:
    """A stage's work: what its inputs hold, and a text of its own."""

    def work(context: StageContext) -> Mapping[str, Any]:
        before = "".join((folder / "text").read_text() for folder in context.inputs.values())
        (context.folder / "text").write_text(before + text)
        return {"name": name}

    return work


def chain(first: str = "a", second: str = "b", outside: str = "") -> list[Stage]:
    return [
        Stage("one", "text", write("one", first), Setting(first), outside=lambda: {"source": outside}),
        Stage("two", "text", write("two", second), Setting(second), ("one",)),
        Stage("side", "text", write("side", "s"), Setting("s")),
    ]


def ran(folder: Path, stages: list[Stage], **options: Any) -> list[str]:
    records = Runner(folder, stages, Silent(), **options).run()
    return [name for name, record in records.items() if not record.skipped]


def test_runs_once_and_then_skips(tmp_path: Path) -> None:
    assert ran(tmp_path, chain()) == ["one", "two", "side"]
    assert (tmp_path / "two" / "text").read_text() == "ab"
    assert ran(tmp_path, chain()) == []


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        (chain(second="c"), ["two"]),
        (chain(first="x"), ["one", "two"]),
        (chain(outside="edited"), ["one"]),  # what it makes is the same, so nothing after it runs
    ],
)
def test_runs_what_a_change_reaches(tmp_path: Path, stages: list[Stage], expected: list[str]) -> None:
    ran(tmp_path, chain())
    assert ran(tmp_path, stages) == expected


def test_a_raised_version_runs_the_stage(tmp_path: Path) -> None:
    ran(tmp_path, chain())
    newer = [Stage("one", "text", write("one", "a"), Setting("a"), outside=lambda: {"source": ""}, version=2)]
    assert ran(tmp_path, newer) == ["one"]


def test_force_runs_a_stage_and_only_it(tmp_path: Path) -> None:
    ran(tmp_path, chain())
    assert ran(tmp_path, chain(), force=("one",)) == ["one"]


def test_until_stops_and_unknown_names_are_refused(tmp_path: Path) -> None:
    records = Runner(tmp_path, chain(), Silent()).run(until="one")
    assert list(records) == ["one"]
    with pytest.raises(ConfigError, match="sid") as caught:
        Runner(tmp_path, chain(), Silent()).run(until="sid")
    assert "side" in caught.value.hint


def test_a_damaged_stage_runs_again(tmp_path: Path) -> None:
    ran(tmp_path, chain())
    (tmp_path / "one" / "text").write_text("b")
    assert ran(tmp_path, chain()) == ["one"]
    (tmp_path / "side" / "text").unlink()
    assert ran(tmp_path, chain()) == ["side"]


def test_a_failed_stage_keeps_its_work_for_the_same_settings(tmp_path: Path) -> None:
    def fail(context: StageContext) -> Mapping[str, Any]:
        (context.folder / "half").write_text("kept")
        raise RuntimeError("stopped")

    def go_on(context: StageContext) -> Mapping[str, Any]:
        return {"found": (context.folder / "half").exists()}

    with pytest.raises(RuntimeError):
        ran(tmp_path, [Stage("one", "text", fail, Setting())])
    assert not (tmp_path / "one").exists()
    assert Runner(tmp_path, [Stage("one", "text", go_on, Setting())], Silent()).plan() == [("one", "resume")]
    records = Runner(tmp_path, [Stage("one", "text", go_on, Setting())], Silent()).run()
    assert records["one"].metrics["found"]

    with pytest.raises(RuntimeError):
        ran(tmp_path, [Stage("one", "text", fail, Setting("b"))])
    records = Runner(tmp_path, [Stage("one", "text", go_on, Setting("c"))], Silent()).run()
    assert not records["one"].metrics["found"]


def test_a_failure_leaves_the_finished_artifact_alone(tmp_path: Path) -> None:
    ran(tmp_path, chain())

    def fail(context: StageContext) -> Mapping[str, Any]:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        ran(tmp_path, [Stage("one", "text", fail, Setting("new"))])
    assert (tmp_path / "one" / "text").read_text() == "a"


def test_temporary_files_leave_with_the_stage(tmp_path: Path) -> None:
    def work(context: StageContext) -> Mapping[str, Any]:
        (context.folder / "state").mkdir()
        (context.folder / "state" / "big").write_text("x")
        (context.folder / "log").write_text("x")
        (context.folder / "kept").write_text("x")
        return {}

    ran(tmp_path, [Stage("one", "text", work, Setting(), temporary=("state", "log", "never made"))])
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"kept", "card.json"}


def test_a_full_disk_is_one_error_that_names_the_stage(tmp_path: Path) -> None:
    def fill(context: StageContext) -> Mapping[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="full") as caught:
        ran(tmp_path, [Stage("one", "text", fill, Setting())])
    assert str(tmp_path / "one") in caught.value.message
    assert not (tmp_path / "one").exists()


def test_plan_says_what_run_does(tmp_path: Path) -> None:
    def planned(stages: list[Stage]) -> dict[str, str]:
        return dict(Runner(tmp_path, stages, Silent()).plan())

    assert planned(chain()) == {"one": "run", "two": "run", "side": "run"}
    ran(tmp_path, chain())
    assert set(planned(chain()).values()) == {"skip"}
    assert planned(chain(first="x")) == {"one": "run", "two": "run", "side": "skip"}
    assert not list(tmp_path.glob("*.partial"))


def test_lineage_names_inputs_by_content(tmp_path: Path) -> None:
    ran(tmp_path, chain())
    stages = {stage["name"]: stage for stage in read_lineage(tmp_path)["stages"]}
    assert stages["two"]["inputs"] == {"one": stages["one"]["content"]}
    assert json.loads((tmp_path / "two" / "card.json").read_text())["fingerprint"] == stages["two"]["fingerprint"]
    with pytest.raises(ArtifactError, match="not a run folder"):
        read_lineage(tmp_path / "one")
