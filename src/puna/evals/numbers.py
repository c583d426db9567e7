"""Answers that are numbers, as GSM8K has them: strict and flexible extraction, with lm-evaluation-harness's rules.

Strict takes what follows the first "####"; flexible takes the last thing that looks like a number, so that a model that
was not told of "####" is judged by its sum. Both compare as text, after commas, dollar signs and a final full stop are
dropped: "18.00" is not "18". MGSM's languages write numbers with the same digits in the reference sets.
"""

from __future__ import annotations

import re

_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
_BEFORE = re.compile(r".*#### ", re.DOTALL)


def strict(answer: str) -> str | None:
    """The number after the first "#### "; None where there is none."""
    match = _STRICT.search(answer)
    return match[1].strip() if match else None


def flexible(answer: str) -> str | None:
    """The last number of a text; None where there is none."""
    found = _FLEXIBLE.findall(answer)
    return found[-1].strip() if found else None


def same_number(found: str | None, reference: str) -> float:
    """1 where an extracted number is that of the reference: a number, or a solution with "#### number"."""
    return float(found is not None and _bare(found) == _bare(reference))


def _bare(text: str) -> str:
    text = _BEFORE.sub("", text.replace(",", "").replace("$", ""))
    return re.sub(r"\.$", "", text).lower()
