"""A run of the full model that is killed twenty times ends as one that never was."""

import pytest

from tests.training.test_resume import kill_often, whole  # noqa: F401


@pytest.mark.soak
def test_twenty_kills_at_random_moments_change_no_bit(whole, tiny_dataset, tmp_path):  # noqa: F811
    kill_often(20, whole, tiny_dataset, tmp_path)
