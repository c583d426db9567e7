"""Answers to ids: which of a rendered conversation's tokens a preference is about.

Each answer becomes a segment of its own, prompt and answer in Llama's chat format, with a mask over the tokens that
its log-probability sums. `content` is what Llama 3.1 sums in DPO (arXiv 2407.21783, section 4.1.4): what the assistant
says, without headers and without the tokens that end a message, because tokens that both answers share are pulled up
and pushed down at once, and models then repeat themselves or stop abruptly. `answer` also has the tokens that end a
message, as in supervised fine-tuning. Headers and the results of tools are in neither: they are not the assistant's.

Tokens are told apart by their place in the format and not by their ids, so a blank line in an answer is content.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from puna.align.groups import Group
from puna.base.errors import InputError
from puna.core.chat import Conversation, Message, ToolSpec
from puna.core.preference import Preference
from puna.data.shards import Segment, TokenShards, write_shards
from puna.tokenizer import Tokenizer

Mask = Literal["content", "answer"]
# A preference's strength as a number; 0 where nobody has said.
STRENGTH_LABELS = {"significantly": 4.0, "better": 3.0, "slightly": 2.0, "negligibly": 1.0}


def render_answer(
    tokenizer: Tokenizer,
    prompt: Sequence[Message],
    answer: Sequence[Message],
    tools: Sequence[ToolSpec] = (),
    mask: Mask = "content",
) -> Segment:
    """Ids of prompt and answer, and a bool for each: whether it counts.

    Raises:
        InputError: the format renders the prompt otherwise when the answer follows, so that there is no border.
    """
    before = tokenizer.chat.render(prompt, tools, add_generation_prompt=False)
    ids, learn = tokenizer.chat.render_for_training(Conversation((*prompt, *answer), tuple(tools)))
    if ids[: len(before)] != before:
        raise InputError("A prompt is rendered otherwise when an answer follows it.", hint="Begin it with a user.")
    ids_T, mask_T = np.asarray(ids), np.asarray(learn, dtype=np.bool_)
    mask_T[: len(before)] = False
    if mask == "content":
        mask_T &= ~np.isin(ids_T, [tokenizer.eot_id, tokenizer.eom_id])
    return ids_T, mask_T


def write_ranked(
    folder: Path | str, preferences: Sequence[Preference], tokenizer: Tokenizer, mask: Mask = "content"
) -> tuple[TokenShards, list[Group]]:
    """Shards with every answer of the preferences, and a group of ranked answers for each; the label is the strength.

    Groups are in the order of the preferences, and segments best first.
    """
    groups, number = [], 0
    for preference in preferences:
        answers = len(preference.ranking)
        label = STRENGTH_LABELS.get(preference.strength, 0.0)
        groups.append(Group(tuple(range(number, number + answers)), label))
        number += answers
    segments = (
        render_answer(tokenizer, preference.prompt, answer, preference.tools, mask)
        for preference in preferences
        for answer in preference.ranking
    )
    return _write(folder, segments, tokenizer, mask), groups


def write_labelled(
    folder: Path | str, preferences: Sequence[Preference], tokenizer: Tokenizer, mask: Mask = "content"
) -> tuple[TokenShards, list[Group]]:
    """Shards and groups for `UnpairedPreference`: each best answer is good (label 1), each worst is not (0).

    Beside every answer stands the same prompt with the answer of the preference after it, from which the distance to
    the reference is estimated (arXiv 2402.01306, section 4.1).

    Raises:
        InputError: fewer than two preferences.
    """
    if len(preferences) < 2:
        raise InputError(f"There are {len(preferences)} preferences; the distance to the reference takes at least 2.")

    def segments() -> Iterator[Segment]:
        for place, preference in enumerate(preferences):
            other = preferences[(place + 1) % len(preferences)]
            for which in (0, -1):
                for answer in (preference.ranking[which], other.ranking[which]):
                    yield render_answer(tokenizer, preference.prompt, answer, preference.tools, mask)

    groups = [Group((2 * i, 2 * i + 1), float(i % 2 == 0)) for i in range(2 * len(preferences))]
    return _write(folder, segments(), tokenizer, mask), groups


def _write(folder: Path | str, segments: Iterable[Segment], tokenizer: Tokenizer, mask: Mask) -> TokenShards:
    config: dict[str, Any] = {"mask": mask}
    return write_shards(folder, segments, tokenizer.vocab_size, config)
