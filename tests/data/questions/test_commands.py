"""Commands and examples."""

from __future__ import annotations

import pytest

from puna.data.questions.commands import find


@pytest.mark.parametrize(
    ("lead", "task"),
    [
        ("To install your tools, run:", "install my tools"),
        ("First things first. To update the index, use the following command:", "update the index"),
        ("You can format any project by running:", "format any project"),
        ("Run the following command to build the docs:", "build the docs"),
        ("Create a new folder with:", "create a new folder"),
    ],
)
def test_commands_are_asked_for_by_their_task(found, lead: str, task: str):
    text = f"{lead}\n\n```\n$ tool --now\n```\n"
    assert found(find, text, "markdown") == [("command", {"task": task}, "tool --now")]


@pytest.mark.parametrize(
    "text",
    [
        "To install it, run:\n\n```\none\ntwo\n```\n",  # two lines
        "To do this, run:\n\n```\ntool\n```\n",
        "The output looks like this:\n\n```\ntool\n```\n",
        "Release versions of it use the format:\n\n```\na.b.c\n```\n",
        "To install the tool, read on.\n\n```\ntool\n```\n",
    ],
)
def test_leads_that_name_no_task(found, text: str):
    assert found(find, text, "markdown") == []


def test_an_example_is_asked_for_by_its_heading(found):
    text = "# Slicing lists\n\nFor example:\n\n    a[1:2]\n"
    assert found(find, text, "markdown") == [("example", {"heading": "Slicing lists"}, "a[1:2]")]
