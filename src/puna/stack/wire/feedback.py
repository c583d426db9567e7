"""Bodies of /v1alpha/feedback: a rating of one answer, or a pair of answers of which one is better."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from puna.stack.wire.base import Wire

MessageJson = dict[str, Any]


class _Feedback(Wire):
    """What both kinds have.

    Attributes:
        prompt: the messages before the answer, in OpenAI's form.
        consent: that the user said yes to keeping this; without it nothing is kept.
        model: who answered.
        conversation: where it was said.
    """

    prompt: list[MessageJson] = Field(min_length=1, max_length=10_000)
    consent: bool = False
    model: str | None = None
    conversation: str | None = None


class Rating(_Feedback):
    """A thumb: 1 is up, -1 is down."""

    kind: Literal["rating"]
    answer: MessageJson
    rating: Literal[1, -1]


class Pair(_Feedback):
    """Two answers, as preference training reads them."""

    kind: Literal["pair"]
    chosen: MessageJson
    rejected: MessageJson
    source: Literal["thumbs", "edit", "compare", "other"] = "other"


FeedbackRequest = Annotated[Rating | Pair, Field(discriminator="kind")]
