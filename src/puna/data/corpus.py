"""A corpus: documents read from a folder, and kept as Parquet shards.

`read_folder` walks in sorted order and reads what the readers know. What it does not read is counted by reason, with
names, because a folder that silently loses half its files teaches a model the other half. Links to folders are not
followed: what they lead to is read where it lives, if that is below the root.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from puna.base.card import CARD, Card
from puna.base.errors import ArtifactError, InputError, MissingExtraError
from puna.base.files import atomic_folder, format_bytes, hash_folder
from puna.base.progress import Progress, Silent
from puna.core.document import Document
from puna.data.readers.reader import ReadConfig
from puna.data.readers.registry import readers_by_suffix, suffix_of

_SKIPPED_FOLDERS = frozenset(("__pycache__", "site-packages", "dist-packages", "node_modules", "_build"))
_BUILT_FOLDERS = frozenset(("build", "dist", "target", "out"))  # output only where a project file stands beside them
_PROJECT_FILES = ("pyproject.toml", "setup.py", "package.json", "CMakeLists.txt", "Cargo.toml", "Makefile", "pom.xml")
_FOLDER_MARKS = ("pyvenv.cfg", "CACHEDIR.TAG")  # a virtual environment, a cache
_GENERATED = re.compile(
    r"\bdo(?: not|n't) edit\b|\bauto(?:matically)?[- ]?generated\b|\bgenerated (?:by|from|with) ['\"]?[\w/.-]*\.\w+",
    re.I,
)
_HEAD = 600  # characters in which a file says that a program wrote it
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Skipped:
    """How many files were left out for one reason, and the first few."""

    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReadReport:
    """What became of a folder's files.

    Attributes:
        root: the folder.
        files: how many were read.
        bytes: their size on disk.
        kinds: files read by kind: "python", "markdown", ...
        skipped: files that a reader knows and that were left out, by reason.
        unknown: files that no reader knows, by suffix ("" for none).
    """

    root: str
    files: int = 0
    bytes: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, Skipped] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)

    def describe(self) -> str:
        """A few lines for a terminal."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.kinds.items(), key=lambda k: -k[1]))
        lines = [f"Read {self.files:,} files, {format_bytes(self.bytes)} ({kinds or 'none'})."]
        for reason, skipped in sorted(self.skipped.items()):
            more = ", ..." if skipped.count > len(skipped.examples) else ""
            lines.append(f"Skipped {skipped.count:,}, {reason}: {', '.join(skipped.examples)}{more}")
        if self.unknown:
            most = sorted(self.unknown.items(), key=lambda item: (-item[1], item[0]))[:8]
            names = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in most)
            lines.append(f"Left {sum(self.unknown.values()):,} files of unknown kinds: {names}")
        return "\n".join(lines)


def read_folder(
    root: Path | str, config: ReadConfig | None = None, progress: Progress | None = None
) -> tuple[list[Document], ReadReport]:
    """Reads every readable file below a folder, or one file, in the order of their paths.

    Returns:
        The documents, whose `source` is the path below `root`, and what was read and skipped.

    Raises:
        InputError: there is no such folder, or nothing readable in it.
        MissingExtraError: nothing could be read because a package for it is not installed.
    """
    root, config = Path(root), config or ReadConfig()
    if not root.exists():
        raise InputError(f"There is no folder or file {root}.", hint="Give the path of your documents.")
    reading = _Reading(root, config)
    files = [(root, root.name)] if root.is_file() else list(reading.walk(root, ""))
    with (progress or Silent()).task("reading", total=len(files), unit="files") as bar:
        for path, source in files:
            reading.read(path, source)
            bar.advance()
    report = reading.report()
    if not reading.documents:
        raise _nothing(report, reading)
    return reading.documents, report


class _Reading:
    """The state of one walk."""

    def __init__(self, root: Path, config: ReadConfig) -> None:
        self.root = root
        self.config = config
        self.readers = readers_by_suffix()
        self.documents: list[Document] = []
        self.bytes = 0
        self.reasons: dict[str, list[str]] = {}
        self.unknown: Counter[str] = Counter()
        self.missing: MissingExtraError | None = None

    def walk(self, folder: Path, below: str) -> Iterator[tuple[Path, str]]:
        """(path, source) of every file to look at; a folder's files come before what its folders hold."""
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            self.skip(_refusal(error), below or str(folder))
            return
        names = {entry.name for entry in entries}
        folders = []
        for entry in entries:
            source = below + os.fsencode(entry.name).decode(errors="replace")
            if self.excluded(source):
                continue
            if _is_folder(entry):
                if entry.is_symlink():
                    self.skip("link to a folder", source)
                elif not _is_passed_over(entry, names):
                    folders.append((Path(entry.path), source))
            elif not entry.name.startswith("."):
                yield Path(entry.path), source
        for path, source in folders:
            yield from self.walk(path, f"{source}/")

    def excluded(self, source: str) -> bool:
        name = PurePosixPath(source).name
        return any(fnmatch.fnmatchcase(source if "/" in glob else name, glob) for glob in self.config.exclude)

    def read(self, path: Path, source: str) -> None:
        """Adds the file's document, or the reason why there is none."""
        suffix = suffix_of(source)
        if suffix not in self.readers or (self.config.suffixes and suffix not in self.config.suffixes):
            self.unknown[suffix] += 1
            return
        try:
            size = path.stat().st_size
            if size > self.config.max_bytes:
                self.skip(f"larger than {format_bytes(self.config.max_bytes)}", source)
                return
            if not path.is_file():
                self.skip("no regular file", source)
                return
            data = path.read_bytes()
        except OSError as error:
            self.skip(_refusal(error), source)
            return
        try:
            document = self.readers[suffix].read(data, source, self.config)
            if not self.config.generated and _GENERATED.search(document.text[:_HEAD]):
                raise InputError("written by a program")
            self.documents.append(document)
            self.bytes += size
        except InputError as error:
            self.skip(error.message, source)
        except MissingExtraError as error:
            self.missing = error
            self.skip(f"{error.message} {error.hint}", source)

    def skip(self, reason: str, source: str) -> None:
        self.reasons.setdefault(reason, []).append(source)

    def report(self) -> ReadReport:
        return ReadReport(
            root=str(self.root),
            files=len(self.documents),
            bytes=self.bytes,
            kinds=dict(Counter(document.meta["kind"] for document in self.documents)),
            skipped={key: Skipped(len(names), tuple(names[:_EXAMPLES])) for key, names in self.reasons.items()},
            unknown=dict(self.unknown),
        )


def _refusal(error: OSError) -> str:
    """The system's refusal as a reason."""
    if isinstance(error, FileNotFoundError):
        return "broken link"
    return "not permitted" if isinstance(error, PermissionError) else (error.strerror or str(error)).lower()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: reading it will say so
        return False


def _is_passed_over(entry: os.DirEntry[str], siblings: set[str]) -> bool:
    """Hidden folders, installed packages, environments, caches, and what a build wrote."""
    if entry.name.startswith(".") or entry.name in _SKIPPED_FOLDERS or entry.name.endswith((".egg-info", ".dist-info")):
        return True
    if entry.name in _BUILT_FOLDERS and any(name in siblings for name in _PROJECT_FILES):
        return True
    return any(Path(entry.path, mark).exists() for mark in _FOLDER_MARKS)


def _nothing(report: ReadReport, reading: _Reading) -> InputError | MissingExtraError:
    suffixes = ", ".join(sorted(reading.readers))
    if reading.missing is not None:
        return reading.missing
    if report.skipped or report.unknown:
        found = "\n".join(report.describe().splitlines()[1:])
        return InputError(f"Nothing in {report.root} could be read.\n{found}", hint=f"Files that are read: {suffixes}.")
    return InputError(f"{report.root} holds no files.", hint=f"Put documents there. Files that are read: {suffixes}.")


def standard_library() -> tuple[Path, ReadConfig]:
    """The folder of the running Python's standard library and how to read it: the default documents.

    Left out: tests, installed packages, build settings, and tables that programs wrote (the codecs' mappings are a
    tenth of the library, and hold numbers alone).

    Raises:
        InputError: this Python has no library in files.
    """
    root = Path(sysconfig.get_path("stdlib"))
    if not root.is_dir():
        raise InputError(
            f"This Python's standard library is not at {root}.", hint="Give a folder with documents of your own."
        )
    exclude = ("test", "tests", "idle_test", "lib-dynload", "config-*", "_sysconfigdata*", "_bundled")
    return root, ReadConfig(exclude=exclude, generated=False)


# Kept on disk --------------------------------------------------------------------------------------------------------

_SHARD_CHARACTERS = 1 << 27  # of text in a shard


def write(
    folder: Path | str,
    documents: Sequence[Document],
    inputs: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Card:
    """Writes Parquet shards (zstd) and a card; the folder is whole or absent.

    Columns: text, id, source, language, scores (map of string to double) and meta (a JSON string).

    Args:
        folder: the corpus; one that stands there is replaced.
        documents: in the order in which `read` gives them back.
        inputs: what it was made from, for the card: names to content hashes.
        config: the settings that made it, for the card.
    """
    import pyarrow.parquet as parquet

    with atomic_folder(folder) as temporary:
        for number, shard in enumerate(_shards(documents)):
            parquet.write_table(_table(shard), temporary / f"documents-{number:05d}.parquet", compression="zstd")
        metrics = {
            "documents": len(documents),
            "characters": sum(len(document.text) for document in documents),
            "kinds": dict(Counter(str(document.meta.get("kind", "")) for document in documents)),
        }
        content = hash_folder(temporary, leave_out=[CARD])
        card = Card("documents", inputs=inputs or {}, config=config or {}, metrics=metrics, content=content)
        card.write(temporary)
    return card


def _shards(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """At least one, so that an empty corpus has its columns too."""
    shard: list[Document] = []
    size = 0
    for document in documents:
        if shard and size + len(document.text) > _SHARD_CHARACTERS:
            yield shard
            shard, size = [], 0
        shard.append(document)
        size += len(document.text)
    yield shard


def _table(documents: Sequence[Document]) -> Any:
    import pyarrow as pa

    schema = pa.schema(
        [(name, pa.string()) for name in ("text", "id", "source", "language")]
        + [("scores", pa.map_(pa.string(), pa.float64())), ("meta", pa.string())]
    )
    rows = [
        {
            "text": document.text,
            "id": document.id,
            "source": document.source,
            "language": document.language,
            "scores": list(document.scores.items()),
            "meta": json.dumps(dict(document.meta), ensure_ascii=False),
        }
        for document in documents
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def read(folder: Path | str) -> list[Document]:
    """The documents of a corpus that `write` wrote.

    Raises:
        ArtifactError: there is no corpus, or a shard is missing or damaged.
        VersionError: another major version of Puna wrote it.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    card = Card.read(folder)
    if card.kind != "documents":
        raise ArtifactError(f"{folder} holds {card.kind!r}, and no documents.", hint="Give the folder of a corpus.")
    documents: list[Document] = []
    for path in sorted(Path(folder).glob("documents-*.parquet")):
        try:
            for row in parquet.read_table(path).to_pylist():
                row |= {"scores": dict(row["scores"]), "meta": json.loads(row["meta"])}
                documents.append(Document(**row))
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path} is damaged: {error}.", hint="Read the documents again.") from error
    if len(documents) != card.metrics.get("documents"):
        raise ArtifactError(
            f"{folder} has {len(documents)} documents; its card says {card.metrics.get('documents')}.",
            hint="A shard is missing: read the documents again.",
        )
    return documents
