"""Chat in the terminal: streaming, a few commands, and a line that says where an answer comes from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from puna.apps.chat.session import ChatSession, Lookup
from puna.base.errors import PunaError, near
from puna.knowledge.grounding import title
from puna.reader.reading import Answering, CitedAnswer

_HELP = """\
/system TEXT    set the system message (without TEXT: remove it)
/set NAME=VALUE change a sampling setting: temperature, top_p, top_k, min_p, max_tokens, seed, ...
/documents      answer from the documents, or from the weights alone
/retry          answer the last question again
/clear          forget the conversation
/save FILE      keep the conversation
/load FILE      take up a kept conversation
/help           this list
/quit           leave (also Ctrl-D)"""


class Terminal:
    """Reads turns from a user and writes answers.

    Args:
        session: the conversation.
        read: gives the next line for a prompt; raises EOFError at the end.
        out: where answers go.
    """

    def __init__(self, session: ChatSession, read: Callable[[str], str] = input, out: IO[str] | None = None) -> None:
        self.session = session
        self.read = read
        self.out = out or sys.stdout
        self._documents_of: tuple[Lookup | None, Answering | None] = (session.lookup, session.reader)
        self._commands: dict[str, Callable[[str], None]] = {
            "system": session.set_system,
            "set": self._set,
            "documents": self._documents,
            "retry": lambda _: self._answer(session.retry()),
            "clear": lambda _: session.clear(),
            "save": self._save,
            "load": self._load,
            "help": lambda _: self._say(_HELP),
        }

    def run(self) -> None:
        """Talks until the user leaves."""
        while True:
            try:
                line = self.read("> ").strip()
                line.encode()  # a system without UTF-8 reads foreign bytes as lone surrogates, which no file can hold
            except EOFError:
                self._say("")
                return
            except KeyboardInterrupt:
                self._say("  (/quit or Ctrl-D leaves)")
                continue
            except UnicodeError:
                self._say("  That line is not valid text.")
                continue
            if line in ("/quit", "/exit"):
                return
            if line:
                self.turn(line)

    def once(self, question: str) -> None:
        """One question from a script: the answer alone goes to `out`, its sources to standard error; errors rise."""
        for piece in self.session.ask(question):
            self.out.write(piece)
        self._say("")
        if sources := self._sources():
            print(sources, file=sys.stderr)

    def turn(self, line: str) -> None:
        """One line of the user's: a command, or a question."""
        try:
            if line.startswith("/"):
                name, _, rest = line[1:].partition(" ")
                self._command(name)(rest.strip())
            else:
                self._answer(self.session.ask(line))
        except KeyboardInterrupt:
            self._say("\n  (stopped)")
        except (PunaError, OSError) as error:
            self._say(f"  {error}")

    def _command(self, name: str) -> Callable[[str], None]:
        if name not in self._commands:
            hint = near(name, [*self._commands, "quit"])
            return lambda _: self._say(f"  There is no command /{name}. {hint} /help lists them.")
        return self._commands[name]

    def _answer(self, pieces: Iterator[str]) -> None:
        for piece in pieces:
            self.out.write(piece)
            self.out.flush()
        self._say("")
        if sources := self._sources():
            self._say(sources)

    def _sources(self) -> str:
        """Where the last answer stands, or the passages that it was asked with."""
        if self.session.cited:
            return _citation(self.session.cited)
        names = ", ".join(dict.fromkeys(passage.source for passage in self.session.shown))
        return f"  [{names}]" if names else ""

    def _set(self, assignment: str) -> None:
        if assignment:
            self.session.set(assignment)
        self._say(f"  {self.session.params}")

    def _documents(self, _: str) -> None:
        if self._documents_of == (None, None):
            self._say("  This model has no documents beside it.")
            return
        on = self.session.lookup is None and self.session.reader is None
        self.session.lookup, self.session.reader = self._documents_of if on else (None, None)
        state = "on: answers come from passages of the documents" if on else "off"
        self._say(f"  documents {state}")

    def _save(self, name: str) -> None:
        self.session.save(_file(name))
        self._say(f"  saved to {_file(name)}")

    def _load(self, name: str) -> None:
        self.session.load(_file(name))
        self._say(f"  {len(self.session.messages)} messages")

    def _say(self, text: str) -> None:
        print(text, file=self.out, flush=True)


def _citation(answer: CitedAnswer) -> str:
    """ "[shutil.py > def copyfile, characters 812 to 850; 97% sure]" for every place; nothing where none was found."""
    places = [
        f"{title(passage)}, characters {span.start} to {span.end}"
        for span, passage in zip(answer.spans, answer.passages, strict=True)
    ]
    sure = f"; {answer.confidence:.0%} sure" if answer.confidence else ""
    return f"  [{'; '.join(places)}{sure}]" if places else ""


def _file(name: str) -> Path:
    """Where a conversation is kept."""
    return Path.home() / name[2:] if name.startswith("~/") else Path(name or "chat.json")
