"""An uploaded file as text, by the ending of its name; what has no known ending is read as plain text.

Python's readers run in this process. A file that they cannot read is the file's fault and is not tried again.
"""

from __future__ import annotations

from dataclasses import replace

from puna.base.errors import InputError, MissingExtraError
from puna.core.document import Document

_UNSUPPORTED = ("binary", "undecodable")


class UnreadableError(Exception):
    """A file without text.

    Args:
        code: "unsupported_file" or "invalid_file", as OpenAI has them.
        message: why.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def read_text(data: bytes, file_id: str, filename: str) -> Document:
    """A file's text as a document with the file's id.

    Raises:
        UnreadableError: there is no text in it.
    """
    # Imported here: a server that is never sent a file needs no readers.
    from puna.data.readers.reader import ReadConfig
    from puna.data.readers.registry import readers_by_suffix, suffix_of

    readers = readers_by_suffix()
    reader = readers.get(suffix_of(filename)) or readers[".txt"]
    try:
        document = reader.read(data, filename, ReadConfig())
    except MissingExtraError as error:
        raise UnreadableError("unsupported_file", " ".join(str(error).split())) from error
    except InputError as error:
        code = "unsupported_file" if error.message in _UNSUPPORTED else "invalid_file"
        raise UnreadableError(code, f"{filename!r} cannot be read: {error.message}.") from error
    return replace(document, id=file_id, source=filename)
