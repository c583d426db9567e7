"""A teacher's questions: what is checked, counted and remembered."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from puna.base.errors import ArtifactError, ConfigError, RemoteError
from puna.core.chat import Message
from puna.core.completion import Completion
from puna.data.teacher import TeacherConfig, teach
from puna.knowledge.chunk import Passage
from puna.knowledge.grounding import NOT_IN_TEXT

TEXT = "The red box {holds} 12 apples. It stands in the hall.\n" * 3
CONFIG = TeacherConfig("fake", concurrency=2)


class Teacher:
    """Answers every request with the same words, and counts."""

    def __init__(self, *pairs: tuple[object, object], reply: str = "", fail_after: int = 1000) -> None:
        self.reply = reply or json.dumps([{"question": q, "answer": a} for q, a in pairs])
        self.fail_after = fail_after
        self.asked: list[Sequence[Message]] = []
        self.lock = threading.Lock()

    def chat(self, messages, params=None, tools=()) -> Completion:
        with self.lock:
            self.asked.append(messages)
            if len(self.asked) > self.fail_after:
                raise RemoteError("gone")
        return Completion(Message("assistant", self.reply), cost=0.5)

    def stream(self, messages, params=None, tools=()):
        raise NotImplementedError

    def chat_batch(self, conversations, params=None):
        raise NotImplementedError


def passages(count: int = 1) -> list[Passage]:
    return [Passage("id", "a.md", 100 * i, 100 * i + len(TEXT), f"Part {i}", TEXT) for i in range(count)]


def test_quotations_get_their_span_and_the_rest_is_counted(tmp_path: Path):
    teacher = Teacher(
        ("How many apples are in the red box?", "12 apples"),
        ("Who owns the box?", "the text does not say"),
        ("What colour is it?", "blue"),
        ("How many apples are in the red box?", "12 apples"),
        ("What does the passage say of apples?", "12 apples"),
        ("Does the red box hold 12 apples?", "12 apples"),
        ("Where is it?", "x"),
        ("Where in?", "hall.\nThe"),
        ("", "12 apples"),
        (None, 12),
        ("Which digit?", "2"),
    )
    conversations, report = teach(teacher, passages(), CONFIG, tmp_path)
    assert [c.messages[1].content for c in conversations] == ["12 apples", NOT_IN_TEXT]
    (span,) = conversations[0].meta["spans"]
    assert TEXT[span[0] : span[1]] == "12 apples"
    assert conversations[1].meta["spans"] == [None]
    assert conversations[0].messages[0].content.endswith("\n\nHow many apples are in the red box?")
    assert report.refused == {
        "answer is no quotation": 3,
        "question asked twice": 1,
        "question points at the passage": 1,
        "answer is in the question": 1,
        "answer too short or too long": 1,
        "question or answer missing": 2,
    }
    assert (report.passages, report.kept, report.cached, report.cost) == (1, 2, 0, 0.5)


def test_spans_count_in_the_document_and_not_in_the_passage(tmp_path: Path):
    conversations, _ = teach(Teacher(("How many?", "12 apples")), passages(2), CONFIG, tmp_path)
    assert [c.meta["spans"][0][0] - c.meta["passage"][0] for c in conversations] == [TEXT.index("12")] * 2


@pytest.mark.parametrize("wrapping", ["{}", "```json\n{}\n```", "Here you are: {} Enjoy!"])
def test_a_list_is_found_among_other_words(tmp_path: Path, wrapping: str):
    reply = wrapping.format('[{"question": "How many?", "answer": "12 apples"}]')
    assert len(teach(Teacher(reply=reply), passages(), CONFIG, tmp_path)[0]) == 1


@pytest.mark.parametrize("reply", ["I cannot.", "[{", '{"question": "a"}', "[]]"])
def test_a_reply_without_a_list_is_counted(tmp_path: Path, reply: str):
    conversations, report = teach(Teacher(reply=reply), passages(), CONFIG, tmp_path)
    assert conversations == []
    assert report.refused == {"no JSON list": 1}


def test_a_run_that_was_cut_off_goes_on_without_asking_again(tmp_path: Path):
    pair = ("How many?", "12 apples")
    config = TeacherConfig("fake", concurrency=1)
    with pytest.raises(RemoteError, match="gone"):
        teach(Teacher(pair, fail_after=3), passages(8), config, tmp_path)
    second = Teacher(pair)
    conversations, report = teach(second, passages(8), config, tmp_path)
    assert len(second.asked) == 5
    assert (len(conversations), report.cached, report.cost) == (8, 3, 2.5)
    third = Teacher(pair, fail_after=0)
    assert teach(third, passages(8), config, tmp_path)[0] == conversations


def test_another_model_or_another_setting_asks_again(tmp_path: Path):
    pair = ("How many?", "12 apples")
    teach(Teacher(pair), passages(), CONFIG, tmp_path)
    for config in (TeacherConfig("other"), TeacherConfig("fake", questions=9)):
        teacher = Teacher(pair)
        teach(teacher, passages(), config, tmp_path)
        assert len(teacher.asked) == 1


def test_the_request_holds_the_passage_with_its_braces_and_the_agreed_sentence(tmp_path: Path):
    teacher = Teacher()
    teach(teacher, passages(), CONFIG, tmp_path)
    system, user = teacher.asked[0]
    assert NOT_IN_TEXT in system.content and "list of 4 objects" in system.content
    assert "{holds}" in user.content and "[a.md > Part 0]" in user.content
    assert "{count}" not in system.content and "{passage}" not in user.content


def test_short_passages_are_passed_over(tmp_path: Path):
    teacher = Teacher()
    _, report = teach(teacher, [Passage("id", "a", 0, 3, "", "abc")], CONFIG, tmp_path)
    assert (report.passages, teacher.asked) == (0, [])


def test_a_damaged_cache_is_named(tmp_path: Path):
    teach(Teacher(), passages(), CONFIG, tmp_path)
    (file,) = tmp_path.rglob("*.json")
    file.write_text("{")
    with pytest.raises(ArtifactError, match=file.name):
        teach(Teacher(), passages(), CONFIG, tmp_path)


@pytest.mark.parametrize(("field", "value"), [("model", ""), ("questions", 0), ("concurrency", 0)])
def test_a_config_out_of_range_is_refused(field: str, value: object):
    with pytest.raises(ConfigError, match=field):
        TeacherConfig(**{"model": "m", field: value})
