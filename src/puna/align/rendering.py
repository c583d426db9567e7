"""Answers to ids: which of a rendered conversation's tokens a preference is about.

Each answer becomes a segment of its own, prompt and answer in Llama's chat format, with a mask over the tokens that
its log-probability sums. `content` is what Llama 3.1 sums in DPO (arXiv 2407.21783, section 4.1.4): what the assistant
says, without headers and without the tokens that end a message, because tokens that both answers share are pulled up
and pushed down at once, and models then repeat themselves or stop abruptly. `answer` also has the tokens that end a
message, as in supervised fine-tuning. Headers and the results of tools are in neither: they are not the assistant's.

Tokens are told apart by their place in the format and not by their ids, so a blank line in an answer is content.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from puna.base.errors import InputError
from puna.core.chat import Conversation, Message, ToolSpec
from puna.data.shards import Segment
from puna.tokenizer import Tokenizer

Mask = Literal["content", "answer"]


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
