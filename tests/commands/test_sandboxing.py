"""`puna sandbox`."""

from __future__ import annotations

import json

from puna.base.errors import ResourceError
from puna.sandbox import probe


def test_every_tier_is_listed_with_what_was_found(puna) -> None:
    code, out, _ = puna("sandbox", "--json")
    told = json.loads(out)
    usable = [tier.name for tier in probe.TIERS if probe.standing(tier).usable]
    assert list(told["sandboxes"]) == [tier.name for tier in probe.TIERS]
    assert told["used"] == (usable[0] if usable else None)
    assert code == (0 if usable else ResourceError.exit_code)
    for name, found in told["sandboxes"].items():
        assert (name in usable) == (not found["breaches"])


def test_the_list_says_which_is_used_and_why_others_are_not(puna) -> None:
    _, out, _ = puna("sandbox")
    standings = [probe.standing(tier) for tier in probe.TIERS]
    assert out.count("  used") == any(each.usable for each in standings)
    for each in standings:
        assert each.sandbox.name in out
        assert all(breach in out for breach in each.breaches)
