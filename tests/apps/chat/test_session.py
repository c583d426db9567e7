from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from puna.apps.chat.session import ChatSession
from puna.base.errors import ArtifactError, ConfigError, InputError, PunaError, RemoteError
from puna.core.chat import Conversation, Message, ToolCall
from puna.core.completion import Completion, SamplingParams
from puna.core.document import Span
from puna.knowledge.chunk import Passage
from puna.knowledge.grounding import NOT_IN_TEXT, grounded_prompt
from puna.reader.reading import CitedAnswer
from puna.testing import Answer, ScriptedChatModel

PASSAGE = Passage("1", "shutil.py", 0, 20, "def copyfile", "def copyfile(): ...\n")


def session(*answers: Answer) -> tuple[ChatSession, ScriptedChatModel]:
    model = ScriptedChatModel(answers)
    return ChatSession(model), model


def said(session: ChatSession, text: str) -> str:
    return "".join(session.ask(text))


def contents(session: ChatSession) -> list[str]:
    return [f"{message.role}: {message.content}" for message in session.messages]


def asked(model: ScriptedChatModel) -> list[str]:
    """What the model was shown last."""
    return [f"{message.role}: {message.content}" for message in model.asked[-1].messages]


def test_a_question_is_asked_with_what_went_before():
    chat, model = session("Hello you.", "Fine.")
    assert said(chat, "Hi") == "Hello you."
    assert said(chat, "How are you?") == "Fine."
    assert asked(model) == ["user: Hi", "assistant: Hello you.", "user: How are you?"]
    assert contents(chat) == [*asked(model), "assistant: Fine."]
    assert chat.last == Completion(Message("assistant", "Fine."))


def test_an_answer_comes_piece_by_piece_with_the_sessions_settings():
    chat, model = session(["One ", "two"])
    chat.params = SamplingParams(temperature=0.25)
    assert list(chat.ask("?")) == ["One ", "two"]
    assert model.asked[0].params == SamplingParams(temperature=0.25)


@pytest.mark.parametrize(
    "failure", [RemoteError("gone"), ["Half ", RemoteError("gone")], ["Half ", KeyboardInterrupt()]]
)
def test_a_model_that_fails_leaves_the_conversation_as_it_was(failure: Answer):
    chat, _ = session("Yes.", failure, failure, "Again.")
    said(chat, "First?")
    before = list(chat.messages), chat.last, chat.shown
    for attempt in (lambda: said(chat, "Second?"), lambda: "".join(chat.retry())):
        with pytest.raises((RemoteError, KeyboardInterrupt)):
            attempt()
        assert (chat.messages, chat.last, chat.shown) == before
    assert said(chat, "Third?") == "Again."
    assert contents(chat)[2:] == ["user: Third?", "assistant: Again."]


def test_an_answer_that_is_left_half_way_leaves_no_trace():
    chat, _ = session("One two", "Whole.")
    pieces = chat.ask("?")
    assert next(pieces) == "One "
    pieces.close()  # type: ignore[attr-defined]
    assert (chat.messages, chat.last) == ([], None)
    assert said(chat, "?") == "Whole."


def test_an_answer_that_calls_a_tool_is_kept_with_its_call():
    message = Message("assistant", "Look:", (ToolCall("look"),))
    chat, _ = session(message)
    assert said(chat, "?") == "Look:"
    assert chat.messages[-1] == message


# Trying again ------------------------------------------------------------------------------------------------------


def test_retry_asks_the_last_question_again_in_place():
    chat, model = session("A.", "B.", "C.")
    said(chat, "1?")
    said(chat, "2?")
    assert "".join(chat.retry()) == "C."
    assert asked(model) == ["user: 1?", "assistant: A.", "user: 2?"]
    assert contents(chat) == ["user: 1?", "assistant: A.", "user: 2?", "assistant: C."]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [Message("system", "Be brief.")],
        [Message("user", "?")],
        [Message("system", "Be brief."), Message("assistant", "Hello.")],
    ],
)
def test_without_an_answered_question_there_is_nothing_to_try_again(messages: list[Message]):
    chat, model = session()
    chat.messages = messages
    with pytest.raises(InputError, match="no answer to try again"):
        "".join(chat.retry())
    assert (chat.messages, model.asked) == (messages, [])


# Documents ---------------------------------------------------------------------------------------------------------


def grounded(*answers: Answer) -> tuple[ChatSession, ScriptedChatModel]:
    """A session whose documents know copyfile alone."""
    chat, model = session(*answers)
    chat.lookup = lambda question: [PASSAGE] if "copyfile" in question else []
    return chat, model


def test_a_question_that_the_documents_answer_is_asked_with_its_passage_and_nothing_else():
    chat, model = grounded("A.", "B.", "C.")
    chat.set_system("Be brief.")
    said(chat, "Hi")
    assert chat.shown == []
    said(chat, "What is copyfile?")
    question = grounded_prompt("What is copyfile?", [PASSAGE])
    assert asked(model) == ["system: Be brief.", f"user: {question}"]
    assert chat.shown == [PASSAGE]
    said(chat, "And then?")
    assert asked(model) == [
        "system: Be brief.", "user: Hi", "assistant: A.", f"user: {question}", "assistant: B.", "user: And then?"
    ]  # fmt: skip
    assert chat.shown == []


def test_retry_asks_a_grounded_question_as_it_was_asked():
    chat, model = grounded("A.", "B.", "C.")
    said(chat, "Hi")
    said(chat, "What is copyfile?")
    first = model.asked[-1].messages
    "".join(chat.retry())
    assert model.asked[-1].messages == first
    assert contents(chat)[-1] == "assistant: C."


def test_a_broken_off_grounded_question_does_not_change_how_the_last_one_is_tried_again():
    chat, model = grounded("A.", RemoteError("gone"), "B.")
    said(chat, "Hi")
    with pytest.raises(RemoteError):
        said(chat, "What is copyfile?")
    "".join(chat.retry())
    assert asked(model) == ["user: Hi"]
    assert chat.shown == []


# Settings ----------------------------------------------------------------------------------------------------------


def test_the_system_message_stands_first_and_can_be_replaced_and_removed():
    chat, model = session("A.", "B.", "C.")
    said(chat, "1?")
    for text in ("Be brief.", "Be kind."):
        chat.set_system(text)
        assert contents(chat) == [f"system: {text}", "user: 1?", "assistant: A."]
    said(chat, "2?")
    assert asked(model)[0] == "system: Be kind."
    chat.set_system("")
    assert contents(chat)[0] == "user: 1?"


def test_set_changes_one_setting():
    chat, _ = session()
    for assignment in ("temperature=0.1", "seed = 3", 'stop=["\\n"]', "max_tokens=7"):
        chat.set(assignment)
    assert chat.params == SamplingParams(temperature=0.1, seed=3, stop=("\n",), max_tokens=7)
    chat.set("seed=none")
    assert chat.params.seed is None


@pytest.mark.parametrize("assignment", ["temperature", "temprature=1", "temperature=hot", "temperature=-1", "=", ""])
def test_set_refuses_what_is_no_setting_and_keeps_the_old_ones(assignment: str):
    chat, _ = session()
    with pytest.raises(ConfigError):
        chat.set(assignment)
    assert chat.params == SamplingParams()


def test_clear_forgets_all_but_the_system_message():
    chat, model = grounded("A.", "B.")
    chat.set_system("Be brief.")
    said(chat, "What is copyfile?")
    chat.clear()
    assert (contents(chat), chat.shown, chat.last) == (["system: Be brief."], (), None)
    said(chat, "Hi")
    assert asked(model) == ["system: Be brief.", "user: Hi"]


# Files -------------------------------------------------------------------------------------------------------------


def test_a_saved_session_is_a_conversation_and_loads_back(tmp_path: Path):
    chat, _ = session("Żółw 🐢.", Message("assistant", "", (ToolCall("look", {"at": 1}),), end_of_turn=False))
    chat.set_system("Be brief.")
    chat.params = SamplingParams(temperature=0, stop=("\n",), seed=4)
    said(chat, "1?")
    said(chat, "2?")
    chat.save(tmp_path / "new folder" / "chat.json")
    data = json.loads((tmp_path / "new folder" / "chat.json").read_text(encoding="utf-8"))
    assert Conversation.from_json(data).messages == tuple(chat.messages)
    assert data["params"] == {"temperature": 0, "stop": ["\n"], "seed": 4}

    other, model = grounded("Again.", "More.")
    said(other, "What is copyfile?")
    other.load(tmp_path / "new folder" / "chat.json")
    assert (other.messages, other.params, other.shown, other.last) == (chat.messages, chat.params, (), None)
    said(other, "3?")
    assert len(model.asked[-1].messages) == 6


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"messages": "x"}', '{"messages": [{"role": "robot"}]}']
)
def test_a_file_that_is_no_conversation_is_refused_and_changes_nothing(tmp_path: Path, content: str):
    chat, _ = session("A.")
    said(chat, "1?")
    (tmp_path / "bad.json").write_text(content, encoding="utf-8")
    with pytest.raises((ArtifactError, InputError)):
        chat.load(tmp_path / "bad.json")
    assert contents(chat) == ["user: 1?", "assistant: A."]


@pytest.mark.parametrize("params", ['{"temperature": -1}', '{"heat": 1}', "[]", '"hot"'])
def test_a_file_with_bad_settings_is_refused_and_changes_nothing(tmp_path: Path, params: str):
    chat, _ = session("A.")
    said(chat, "1?")
    (tmp_path / "bad.json").write_text(f'{{"messages": [], "params": {params}}}', encoding="utf-8")
    with pytest.raises(ConfigError):
        chat.load(tmp_path / "bad.json")
    assert contents(chat) == ["user: 1?", "assistant: A."]
    assert chat.params == SamplingParams()


@pytest.mark.parametrize("act", [ChatSession.load, ChatSession.save])
def test_a_place_that_cannot_be_is_refused(tmp_path: Path, act: Callable[[ChatSession, Path], None]):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(PunaError, match="file"):
        act(session()[0], tmp_path / "file" / "chat.json")


# Quotations --------------------------------------------------------------------------------------------------------


class Quoting:
    """A reader that knows copyfile, has looked for anything with a name in it, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []

    def answer(self, question: str, history: Sequence[Message] = ()) -> CitedAnswer:
        self.asked.append((question, [message.content for message in history]))
        trace = {"question": question, "passages": [{"source": "shutil.py"}] if "file" in question else []}
        if "copyfile" not in question:
            return CitedAnswer(NOT_IN_TEXT, trace=trace)
        return CitedAnswer("def copyfile", (Span("1", 0, 12),), (PASSAGE,), 0.9, trace)


def quoting(*answers: Answer) -> tuple[ChatSession, ScriptedChatModel, Quoting]:
    chat, model = session(*answers)
    chat.reader = reader = Quoting()
    return chat, model, reader


def test_a_question_that_the_documents_answer_is_answered_by_a_quotation():
    chat, model, reader = quoting()
    assert said(chat, "What is copyfile?") == "def copyfile"
    assert model.asked == []
    assert chat.cited is not None
    assert (chat.cited.spans, chat.shown) == ((Span("1", 0, 12),), (PASSAGE,))
    assert contents(chat) == [f"user: {grounded_prompt('What is copyfile?', [PASSAGE])}", "assistant: def copyfile"]
    said(chat, "And file?")
    assert reader.asked[1] == ("And file?", [message.content for message in chat.messages[:2]])


def test_what_the_documents_do_not_say_is_not_written_either():
    chat, model, _ = quoting()
    assert said(chat, "What is a file?") == NOT_IN_TEXT
    assert (model.asked, chat.shown) == ([], ())


def test_a_turn_that_asks_for_nothing_in_the_documents_is_the_models():
    chat, model, _ = quoting("Hello you.")
    assert said(chat, "Hi") == "Hello you."
    assert (asked(model), chat.cited) == (["user: Hi"], None)


def test_retry_reads_again():
    chat, _, reader = quoting()
    said(chat, "What is\n\ncopyfile?")
    before = list(chat.messages)
    "".join(chat.retry())
    assert [question for question, _ in reader.asked] == ["What is\n\ncopyfile?"] * 2
    assert chat.messages == before
