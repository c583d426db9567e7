"""Who has the beginning of a prompt in its cache."""

from __future__ import annotations

from dataclasses import replace

from puna.core.chat import Message, ToolSpec
from puna.stack.providers.provider import Ask
from puna.stack.routing.affinity import Affinity

FIRST = (Message("system", "You are brief. " * 20), Message("user", "Hello"))
ASK = Ask("m", FIRST, owner="ann")
LATER = replace(ASK, messages=(*FIRST, Message("assistant", "Hi."), Message("user", "And now?")))


def test_a_conversation_goes_on_where_it_was() -> None:
    affinity = Affinity(300, lambda: 0.0)
    affinity.remember("a/m", ASK, 120)
    assert affinity.cached(LATER, ["a/m", "b/m"]) == {"a/m": 120}
    assert affinity.cached(ASK, ["a/m"]) == {"a/m": 120}


def test_a_shared_system_message_counts_for_its_part() -> None:
    affinity = Affinity(300, lambda: 0.0)
    affinity.remember("a/m", ASK, 100)
    other = replace(ASK, messages=(FIRST[0], Message("user", "Something else entirely")))
    (tokens,) = affinity.cached(other, ["a/m"]).values()
    assert 70 < tokens < 100


def test_other_owners_tools_and_texts_share_nothing() -> None:
    affinity = Affinity(300, lambda: 0.0)
    affinity.remember("a/m", ASK, 100)
    assert not affinity.cached(replace(ASK, owner="bob"), ["a/m"])
    assert not affinity.cached(replace(ASK, tools=(ToolSpec("t"),)), ["a/m"])
    assert not affinity.cached(replace(ASK, messages=(Message("user", "Hello"),)), ["a/m"])


def test_a_cache_is_forgotten() -> None:
    now = [0.0]
    affinity = Affinity(300, lambda: now[0])
    affinity.remember("a/m", ASK, 100)
    now[0] = 299
    assert affinity.cached(LATER, ["a/m"])
    now[0] = 300
    assert not affinity.cached(LATER, ["a/m"])


def test_it_can_be_switched_off() -> None:
    affinity = Affinity(0)
    affinity.remember("a/m", ASK, 100)
    assert not affinity.cached(ASK, ["a/m"])
