"""`card.json`: what an artifact is, what it was made of, and how it came out.

Every artifact folder holds one, so that from a served model one can walk back to the documents.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from puna.base.errors import ArtifactError, VersionError
from puna.base.files import read_json, write_json

CARD = "card.json"
FORMAT = "1.0"


@dataclass(frozen=True, slots=True)
class Card:
    """An artifact's passport.

    Attributes:
        kind: "checkpoint", "tokenizer", "documents", ...
        inputs: artifact name -> content hash of what it was made from.
        config: the settings that made it.
        metrics: how it came out.
        fingerprint: hash of inputs, config and code version: equal fingerprints mean that the work can be skipped.
        content: hash of the artifact's files, the card left out.
        puna: the version of Puna that wrote it.
        format: version of the artifact's layout; another major number cannot be read.
    """

    kind: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    content: str = ""
    puna: str = ""
    format: str = FORMAT

    def write(self, folder: Path | str) -> None:
        data = {name: getattr(self, name) for name in self.__slots__}
        data["puna"] = self.puna or version()
        write_json(Path(folder) / CARD, data)

    @classmethod
    def read(cls, folder: Path | str) -> Card:
        """Reads a folder's card; refuses one that is damaged or of another major format."""
        path = Path(folder) / CARD
        data = read_json(path)
        if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
            raise ArtifactError(f"{path} is not the card of an artifact: it names no kind.")
        found = str(data.get("format", "0"))
        if found.split(".")[0] != FORMAT.split(".")[0]:
            raise VersionError(
                f"{path} has format {found}; this version of Puna reads {FORMAT}.",
                hint=f"It was written by puna {data.get('puna') or 'of an unknown version'}: use that version.",
            )
        return cls(**{name: data[name] for name in cls.__slots__ if name in data})


@functools.cache
def version() -> str:
    """Of the installed package; reading it takes a millisecond, and every answer of the server tells it."""
    try:
        return metadata.version("puna")
    except metadata.PackageNotFoundError:
        return "0+source"
