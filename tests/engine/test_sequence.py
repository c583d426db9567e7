from __future__ import annotations

from puna.core.completion import SamplingParams
from puna.engine.adapters import Adapter
from puna.engine.sampler import Sampler
from puna.engine.sequence import Request, Sequence


def sequence(prompt: tuple[int, ...] = (1, 2, 3), number: int = 0, **request) -> Sequence:
    params = SamplingParams()
    return Sequence(number, Request(prompt, params, **request), 100, Sampler(params, ()), tokens=list(prompt))


def test_the_new_tokens_are_those_after_the_prompt():
    one = sequence()
    assert one.ids == []
    one.tokens += [8, 9]
    assert one.ids == [8, 9]


def test_it_decodes_once_its_prompt_is_computed_whatever_else_is_pending():
    one = sequence()
    assert (one.pending, one.decoding) == (3, False)
    one.computed = 2
    assert (one.pending, one.decoding) == (1, False)
    one.computed, one.tokens = 3, [1, 2, 3, 8, 9]
    assert (one.pending, one.decoding) == (2, True)


def test_it_has_ended_with_a_reason_or_an_error():
    one, other = sequence(), sequence()
    assert not one.ended
    one.stop_reason = "length"
    other.error = RuntimeError()
    assert one.ended
    assert other.ended


def test_only_equal_tenants_and_adapters_share_pages():
    """An adapter that was loaded anew under an old name is another one."""
    ones = [sequence(), sequence(tenant="a"), sequence(tenant="b")]
    for number in (1, 2):
        ones.append(sequence(tenant="a", adapter="x"))
        ones[-1].adapter = Adapter(number, {})
    assert len({one.salt for one in ones}) == len(ones)
    assert sequence(tenant="a").salt == ones[1].salt


def test_priority_goes_before_arrival():
    ones = [sequence(number=2), sequence(number=1), sequence(number=3, priority=-1)]
    assert sorted(ones, key=lambda one: one.urgency) == [ones[2], ones[1], ones[0]]


def test_sequences_of_equal_content_are_not_the_same():
    one, other = sequence(), sequence()
    assert one != other
    assert len({one, other}) == 2
