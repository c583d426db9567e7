"""Reading: a folder of files becomes documents, exact duplicates dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from puna.base.files import hash_json
from puna.data import corpus
from puna.data.dedup import drop_exact
from puna.data.readers.reader import ReadConfig
from puna.recipes.runner import StageContext

CORPUS = "corpus"


def source_hash(root: Path) -> dict[str, str]:
    """A hash of names, sizes and times of the files below `root`: cheap, and it changes when a file does."""
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    facts = [(path.relative_to(root).as_posix(), path.stat()) for path in files]
    return {str(root): hash_json([[name, stat.st_size, stat.st_mtime_ns] for name, stat in facts])}


def read(context: StageContext, root: Path, config: ReadConfig) -> Mapping[str, Any]:
    """Writes the corpus; returns what was read and skipped."""
    documents, report = corpus.read_folder(root, config, context.progress)
    kept, dropped = drop_exact(documents)
    corpus.write(context.folder / CORPUS, kept)
    context.progress.say(report.describe())
    return {
        "documents": len(kept),
        "characters": sum(len(document.text) for document in kept),
        "duplicates": len(dropped),
        "report": asdict(report),
    }
