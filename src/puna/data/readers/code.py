"""Source code in other languages than Python, kept as it is; which language it is goes by the file's name.

Markup, style sheets, data and settings (JSON, YAML, CSS) are left out: they hold little that anybody asks about.
"""

from __future__ import annotations

from pathlib import PurePath

from puna.core.document import Document
from puna.data.readers.decode import decode
from puna.data.readers.reader import ReadConfig, Reader, make_document

LANGUAGES = {
    "c": (".c", ".h"),
    "cpp": (".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".cu", ".cuh"),
    "csharp": (".cs",),
    "go": (".go",),
    "java": (".java",),
    "javascript": (".js", ".mjs", ".cjs", ".jsx"),
    "kotlin": (".kt", ".kts"),
    "lua": (".lua",),
    "php": (".php",),
    "r": (".r",),
    "ruby": (".rb",),
    "rust": (".rs",),
    "scala": (".scala",),
    "shell": (".sh", ".bash"),
    "swift": (".swift",),
    "typescript": (".ts", ".mts", ".tsx"),
}
_BY_SUFFIX = {suffix: language for language, suffixes in LANGUAGES.items() for suffix in suffixes}


def read(data: bytes, source: str, config: ReadConfig) -> Document:
    del config
    language = _BY_SUFFIX.get(PurePath(source).suffix.lower(), "")
    return make_document(decode(data), source, "code", {"language": language})


READER = Reader(tuple(_BY_SUFFIX), read)
