"""The stage runner: a chain of stages over one run folder, each skipped when nothing that it depends on has changed.

A stage's fingerprint is the hash of its settings, its version and the contents of its inputs. A finished stage is a
folder with a `card.json` that names the fingerprint and the hash of its files. A stage works in `<name>.partial`,
which becomes `<name>` when it ends: killed at any moment, a run goes on from its last finished stage, and a training
stage from its last saved state. Stages run one after another; the work inside them is what runs in parallel.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from puna.base.card import CARD, Card, version
from puna.base.config import to_dict
from puna.base.errors import ArtifactError, ConfigError, near, storage_errors
from puna.base.files import hash_folder, hash_json, move_folder, read_json, recover_folder, write_json, write_text
from puna.base.progress import MetricsLog, Progress
from puna.recipes.run_folder import LINEAGE

METRICS = "metrics.jsonl"
_FINGERPRINT = ".fingerprint"


@dataclass(frozen=True, slots=True)
class StageContext:
    """What a stage gets to work with.

    Attributes:
        folder: where its files go; kept from an earlier attempt with the same fingerprint.
        inputs: earlier stages' folders by name.
        progress: who watches.
        metrics: the run's metrics file.
        run_folder: the whole run, for a stage that reports on all of it.
    """

    folder: Path
    inputs: Mapping[str, Path]
    progress: Progress
    metrics: MetricsLog
    run_folder: Path


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a recipe.

    Attributes:
        name: also of its folder.
        kind: of the artifact that it makes.
        work: does it; returns metrics for the card.
        config: a dataclass with everything that decides the outcome.
        inputs: names of the earlier stages that it reads.
        outside: names and hashes of what it reads from elsewhere, asked for when the stage's turn comes.
        version: raised when the code of the stage changes what it makes.
        temporary: files in its folder that are of use only while it runs.
    """

    name: str
    kind: str
    work: Callable[[StageContext], Mapping[str, Any]]
    config: Any
    inputs: tuple[str, ...] = ()
    outside: Callable[[], Mapping[str, str]] = dict
    version: int = 1
    temporary: tuple[str, ...] = ()


@dataclass(slots=True)
class StageRecord:
    """What the lineage says of a stage."""

    name: str
    kind: str
    inputs: dict[str, str]
    fingerprint: str
    content: str
    metrics: dict[str, Any]
    seconds: float
    skipped: bool = False


@dataclass(slots=True)
class Runner:
    """Runs stages in a folder.

    Attributes:
        folder: of the run.
        stages: in order.
        progress: who watches.
        force: names of stages to run again although nothing has changed.
    """

    folder: Path
    stages: Sequence[Stage]
    progress: Progress
    force: Sequence[str] = ()
    records: dict[str, StageRecord] = field(default_factory=dict)

    def run(self, until: str | None = None) -> dict[str, StageRecord]:
        """Runs or skips every stage, up to and including `until`."""
        names = [stage.name for stage in self.stages]
        for name in (*self.force, *([until] if until else ())):
            if name not in names:
                raise ConfigError(f"There is no stage {name!r}.", hint=near(name, names))
        for stage in self.stages:
            self.records[stage.name] = self._run_stage(stage)
            write_json(self.folder / LINEAGE, self.lineage())
            if stage.name == until:
                break
        return self.records

    def lineage(self) -> dict[str, Any]:
        """From each artifact back to the documents."""
        return {
            "puna": version(),
            "stages": [
                {
                    "name": r.name,
                    "kind": r.kind,
                    "inputs": r.inputs,
                    "fingerprint": r.fingerprint,
                    "content": r.content,
                    "seconds": r.seconds,
                    "metrics": r.metrics,
                }
                for r in self.records.values()
            ],
        }

    def plan(self) -> list[tuple[str, str]]:
        """Each stage with what `run` would do: "skip", "resume" or "run". A stage after one that runs will run too."""
        planned: list[tuple[str, str]] = []
        changed: set[str] = set()
        for stage in self.stages:
            inputs = None if changed & set(stage.inputs) else self._input_hashes(stage)
            fingerprint = None if inputs is None else self._fingerprint(stage, inputs)
            if fingerprint and stage.name not in self.force and self._finished(stage, fingerprint):
                planned.append((stage.name, "skip"))
                continue
            changed.add(stage.name)
            resumes = fingerprint and self._partial_fingerprint(stage) == fingerprint
            planned.append((stage.name, "resume" if resumes else "run"))
        return planned

    def _run_stage(self, stage: Stage) -> StageRecord:
        target = self.folder / stage.name
        with storage_errors(target):
            recover_folder(target)
        inputs = self._input_hashes(stage)
        fingerprint = self._fingerprint(stage, inputs)
        card = self._finished(stage, fingerprint)
        if card and stage.name not in self.force:
            seconds = float(card.metrics.get("seconds", 0.0))
            self.progress.say(f"{stage.name}: unchanged, skipped")
            metrics = dict(card.metrics)
            return StageRecord(
                stage.name, stage.kind, inputs, fingerprint, card.content, metrics, seconds, skipped=True
            )
        partial = self._prepare_partial(stage, fingerprint)
        started = time.monotonic()
        context = StageContext(
            partial,
            {name: self.folder / name for name in stage.inputs},
            self.progress,
            MetricsLog(self.folder / METRICS),
            self.folder,
        )
        with storage_errors(target):
            metrics = dict(stage.work(context))
            for name in (*stage.temporary, _FINGERPRINT):
                _remove(partial / name)
            content = hash_folder(partial, leave_out={CARD})
            metrics["seconds"] = round(time.monotonic() - started, 2)
            Card(stage.kind, inputs, to_dict(stage.config), metrics, fingerprint, content).write(partial)
            move_folder(partial, target)
        return StageRecord(stage.name, stage.kind, inputs, fingerprint, content, metrics, metrics["seconds"])

    def _prepare_partial(self, stage: Stage, fingerprint: str) -> Path:
        """The stage's working folder: an earlier attempt's if it had the same fingerprint, else an empty one."""
        partial = self.folder / f"{stage.name}.partial"
        with storage_errors(partial):
            if partial.exists() and self._partial_fingerprint(stage) != fingerprint:
                shutil.rmtree(partial)
            partial.mkdir(parents=True, exist_ok=True)
            write_text(partial / _FINGERPRINT, fingerprint)
        return partial

    def _partial_fingerprint(self, stage: Stage) -> str:
        path = self.folder / f"{stage.name}.partial" / _FINGERPRINT
        return path.read_text() if path.exists() else ""

    def _input_hashes(self, stage: Stage) -> dict[str, str]:
        hashes = dict(stage.outside())
        for name in stage.inputs:
            record = self.records.get(name)
            hashes[name] = record.content if record else _content(self.folder / name)
        return hashes

    def _fingerprint(self, stage: Stage, inputs: Mapping[str, str]) -> str:
        return hash_json([stage.name, stage.version, to_dict(stage.config), dict(inputs)])

    def _finished(self, stage: Stage, fingerprint: str) -> Card | None:
        """The card of a finished, undamaged stage with this fingerprint."""
        folder = self.folder / stage.name
        if not (folder / CARD).exists():
            return None
        card = Card.read(folder)
        if card.fingerprint != fingerprint:
            return None
        if hash_folder(folder, leave_out={CARD}) != card.content:
            self.progress.say(f"{stage.name}: its files have changed since it was made, so it is made again")
            return None
        return card


def _content(folder: Path) -> str:
    return str(read_json(folder / CARD)["content"]) if (folder / CARD).exists() else ""


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_lineage(run_folder: Path) -> dict[str, Any]:
    """The lineage of a run folder."""
    path = run_folder / LINEAGE
    if not path.exists():
        raise ArtifactError(f"{run_folder} is not a run folder: it has no {LINEAGE}.", hint="Make one with puna raise.")
    return read_json(path)
