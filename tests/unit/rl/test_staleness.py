import pytest
import torch

from keisei_lightning.errors import ConfigError
from keisei_lightning.rl import StalenessBudget, policy_lag


def test_the_lag_is_the_number_of_versions_published_since():
    assert policy_lag(7, 7) == 0
    assert policy_lag(7, 4) == 3
    assert policy_lag(7, torch.tensor([[7, 5], [6, 0]])).tolist() == [[0, 2], [1, 7]]
    assert policy_lag(7, torch.empty(0, dtype=torch.int64)).tolist() == []


@pytest.mark.parametrize("version", [8, torch.tensor([3, 8])])
def test_a_version_that_was_never_published_is_refused(version):
    with pytest.raises(ValueError, match="policy_version=8 is newer than the latest published version 7"):
        policy_lag(7, version)


def test_a_negative_budget_is_refused():
    with pytest.raises(ConfigError, match=r"parallel\.max_policy_lag=-1: must be 0 or more"):
        StalenessBudget(-1)
