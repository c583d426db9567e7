"""How passages and a question become one message, and how a model says that they do not hold the answer.

Training data, evaluation and chat all call these functions, so that a model meets in use the very form it was taught.
Every token counts for a small model: a passage has a one-line title, there are no instructions, and the question
comes last, next to where the answer begins.
"""

from __future__ import annotations

from collections.abc import Sequence

from puna.knowledge.chunk import Passage

NOT_IN_TEXT = "The text does not say."


def grounded_prompt(question: str, passages: Sequence[Passage]) -> str:
    """The passages, each under its title, then the question; without passages the question alone.

    A question that follows up on a passage already in the conversation is asked without passages.
    """
    blocks = [f"[{title(passage)}]\n{passage.text.strip(chr(10)).rstrip()}" for passage in passages]
    return "\n\n".join([*blocks, question])


def title(passage: Passage) -> str:
    """Where the passage stands, in one line: its file and its two innermost headings, "shutil.py > def copyfile"."""
    headings = passage.heading.split(" > ")[-2:]
    return " > ".join(part for part in (passage.source, *headings) if part)


def says_not_in_text(answer: str) -> bool:
    """Whether an answer is the agreed sentence, whatever its case and its full stop."""
    return answer.strip().rstrip(".").casefold() == NOT_IN_TEXT.rstrip(".").casefold()
