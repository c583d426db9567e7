from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pytest

from puna.apps.chat.session import ChatSession
from puna.apps.chat.terminal import Terminal
from puna.base.errors import RemoteError
from puna.core.chat import Message
from puna.core.completion import SamplingParams
from puna.core.document import Span
from puna.knowledge.chunk import Passage
from puna.knowledge.grounding import NOT_IN_TEXT
from puna.reader.reading import CitedAnswer
from puna.testing import Answer, ScriptedChatModel

Line = str | BaseException


class Keyboard:
    """Types the given lines; an exception among them is raised in its turn, and the end is Ctrl-D."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = list(lines)

    def __call__(self, prompt: str) -> str:
        assert prompt == "> "
        line = self.lines.pop(0) if self.lines else EOFError()
        if isinstance(line, BaseException):
            raise line
        return line


def talk(lines: Sequence[Line], *answers: Answer, session: ChatSession | None = None) -> tuple[str, ChatSession]:
    """What is written to a user who types these lines."""
    session = session or ChatSession(ScriptedChatModel(answers))
    out, keyboard = io.StringIO(), Keyboard(lines)
    Terminal(session, keyboard, out).run()
    assert keyboard.lines == []
    return out.getvalue(), session


def with_documents(*answers: Answer) -> ChatSession:
    passages = [
        Passage("1", "a.py", 0, 1, "", "x"),
        Passage("1", "a.py", 2, 3, "", "y"),
        Passage("2", "b.md", 0, 1, "", "z"),
    ]
    return ChatSession(ScriptedChatModel(answers), lookup=lambda question: passages if "know" in question else [])


def test_questions_are_answered_until_the_end_of_the_input():
    out, session = talk(["Hi", "  ", "Who?"], "Hello you.", "Me.")
    assert out == "Hello you.\nMe.\n\n"
    assert [message.content for message in session.messages] == ["Hi", "Hello you.", "Who?", "Me."]


@pytest.mark.parametrize("line", ["/quit", "/exit", "  /quit  "])
def test_quit_leaves(line: str):
    session = ChatSession(ScriptedChatModel([]))
    keyboard = Keyboard([line, "never read"])
    Terminal(session, keyboard, io.StringIO()).run()
    assert keyboard.lines == ["never read"]


def test_an_answer_is_shown_while_it_comes():
    shown: list[str] = []

    class Screen(io.StringIO):
        def flush(self) -> None:
            shown.append(self.getvalue())

    session = ChatSession(ScriptedChatModel(["One two three"]))
    Terminal(session, Keyboard([]), Screen()).turn("?")
    assert shown[:3] == ["One ", "One two ", "One two three"]


# Commands ----------------------------------------------------------------------------------------------------------


def test_help_lists_every_command():
    out, _ = talk(["/help"])
    for name in ("system", "set", "documents", "retry", "clear", "save", "load", "help", "quit"):
        assert f"/{name}" in out


def test_system_sets_and_removes_the_system_message():
    _, session = talk(["/system Be brief.", "Hi"], "Yes.")
    assert session.messages[0].content == "Be brief."
    talk(["/system"], session=session)
    assert [message.role for message in session.messages] == ["user", "assistant"]


def test_set_shows_and_changes_the_settings():
    out, session = talk(["/set temperature=0.25", "/set", "/set temprature=1", "/set temperature=-1", "Hi"], "Yes.")
    assert session.params == SamplingParams(temperature=0.25)
    assert out.count("temperature=0.25") == 2
    assert "Did you mean 'temperature'?" in out
    assert "must be at least 0" in out
    assert out.endswith("Yes.\n\n")


def test_retry_answers_again():
    out, session = talk(["Hi", "/retry"], "One.", "Two.")
    assert out == "One.\nTwo.\n\n"
    assert [message.content for message in session.messages] == ["Hi", "Two."]


def test_retry_without_a_question_is_a_sentence():
    out, _ = talk(["/retry", "Hi"], "Yes.")
    assert "no answer to try again" in out
    assert out.endswith("Yes.\n\n")


def test_clear_forgets_the_conversation():
    _, session = talk(["Hi", "/clear", "Who?"], "One.", "Two.")
    assert [message.content for message in session.messages] == ["Who?", "Two."]


def test_documents_are_named_and_can_be_switched_off_and_on():
    session = with_documents("A.", "B.", "C.", "D.")
    out, _ = talk(["What do you know?", "Hi", "/documents", "know?", "/documents", "know?"], session=session)
    assert out.splitlines() == [
        "A.", "  [a.py, b.md]", "B.", "  documents off", "C.",
        "  documents on: answers come from passages of the documents", "D.", "  [a.py, b.md]", "",
    ]  # fmt: skip


def test_without_documents_there_are_none_to_switch_on():
    out, session = talk(["/documents"])
    assert "no documents" in out
    assert session.lookup is None


def test_save_and_load_keep_a_conversation(tmp_path: Path):
    out, _ = talk([f"/save {tmp_path}/my chat.json", "Hi", f"/save {tmp_path}/my chat.json"], "Yes.")
    assert f"saved to {tmp_path}/my chat.json" in out
    out, session = talk([f"/load {tmp_path}/my chat.json"])
    assert "2 messages" in out
    assert [message.content for message in session.messages] == ["Hi", "Yes."]


def test_a_file_has_a_name_if_the_user_gives_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    out, _ = talk(["/save", "/load"])
    assert "saved to chat.json" in out
    assert [path.name for path in tmp_path.iterdir()] == ["chat.json"]


def test_a_tilde_is_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    talk(["/save ~/chats/one.json", "/load ~/chats/one.json", "/save ~backup"])
    assert (tmp_path / "home" / "chats" / "one.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "~backup"]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("/retyr", "Did you mean 'retry'?"),
        ("/hlep me", "Did you mean 'help'?"),
        ("/xyzzy", "Known: "),
        ("/", "Known: "),
    ],
)
def test_an_unknown_command_names_the_near_one(line: str, hint: str):
    out, session = talk([line])
    assert f"There is no command {line.split()[0]}. {hint}" in out
    assert "/help" in out
    assert session.messages == []


# What goes wrong ---------------------------------------------------------------------------------------------------


def test_errors_are_sentences_and_the_talk_goes_on(tmp_path: Path):
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    lines = ["Hi", f"/load {tmp_path}/bad.json", f"/load {tmp_path}/none.json", f"/save {tmp_path}/bad.json/x", "Hi"]
    out, session = talk(lines, RemoteError("The server is gone.", hint="Start it."), "Yes.")
    for part in ("The server is gone.\n  Start it.", "is not valid JSON", "There is no file", "Cannot write"):
        assert part in out
    assert out.endswith("Yes.\n\n")
    assert [message.content for message in session.messages] == ["Hi", "Yes."]


def test_what_the_system_refuses_does_not_end_the_talk():
    out, _ = talk(["/save /proc/nobody/chat.json", "Hi"], "Yes.")
    assert "/proc/nobody" in out
    assert out.endswith("Yes.\n\n")


def test_ctrl_c_stops_an_answer_and_leaves_the_session_usable():
    out, session = talk(["Hi", "Hi again"], ["One ", KeyboardInterrupt()], "Whole.")
    assert out == "One \n  (stopped)\nWhole.\n\n"
    assert [message.content for message in session.messages] == ["Hi again", "Whole."]


def test_ctrl_c_at_the_prompt_tells_how_to_leave():
    out, _ = talk([KeyboardInterrupt(), "Hi"], "Yes.")
    assert "/quit or Ctrl-D leaves" in out
    assert "Yes." in out


@pytest.mark.parametrize(
    "line", [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "caf\udce9", "/save \udcff.json"]
)
def test_a_line_that_is_no_text_is_refused(line: Line):
    """What a terminal sends that is set to another encoding: how it arrives depends on the locale."""
    out, session = talk([line, "Hi"], "Yes.")
    assert "not valid text" in out
    assert [message.content for message in session.messages] == ["Hi", "Yes."]


def test_a_quotation_is_shown_with_its_place_and_can_be_switched_off_and_on():
    passage = Passage("1", "shutil.py", 800, 860, "def copyfile", "x")

    class Quoting:
        def answer(self, question: str, history: Sequence[Message] = ()) -> CitedAnswer:
            trace = {"question": question, "passages": [{"source": "shutil.py"}]}
            if "copyfile" in question:
                return CitedAnswer("Copy data.", (Span("1", 812, 822),), (passage,), 0.97, trace)
            return CitedAnswer(NOT_IN_TEXT, trace=trace)

    session = ChatSession(ScriptedChatModel(["Hm."]), reader=Quoting())
    lines = ["copyfile?", "else?", "/documents", "copyfile?", "/documents", "copyfile?"]
    out, _ = talk(lines, session=session)
    place = "  [shutil.py > def copyfile, characters 812 to 822; 97% sure]"
    assert out.splitlines() == [
        "Copy data.", place, NOT_IN_TEXT, "  documents off", "Hm.",
        "  documents on: answers come from passages of the documents", "Copy data.", place, "",
    ]  # fmt: skip
