"""What is made of the ways in which several ranks have ended."""

from __future__ import annotations

import pytest

from keisei_lightning.errors import RankError
from keisei_lightning.launching import Phase, agreed
from keisei_lightning.launching.outcomes import Died, conclude, failure_of

TOO_SLOW = Died(-9, Phase.ENDING, by_us=True)


def test_what_the_ranks_have_agreed_on_is_raised_although_one_was_too_slow_to_say_so() -> None:
    pruned = failure_of(agreed(LookupError("worse than others")), Phase.ENDING)
    with pytest.raises(LookupError, match=r"worse than others"):
        conclude([(1, pruned), (0, TOO_SLOW)])


def test_what_one_rank_alone_has_raised_is_an_error_of_that_rank() -> None:
    broken = failure_of(LookupError("no such thing"), Phase.ENDING)
    with pytest.raises(RankError, match=r"^rank 1: LookupError: "):
        conclude([(1, broken), (0, TOO_SLOW)])
