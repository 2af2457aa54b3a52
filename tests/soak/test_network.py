"""Every command without a network, counted."""

import pytest

from tests.soak.tally import TALLY
from tests.test_network import NAMES, answers  # noqa: F401


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_without_a_network(answers, name):  # noqa: F811
    answer = answers[1][name]
    with TALLY.case("network denied", name):
        assert (answer["code"], answer["names"], answer["connections"]) == (0, [], 0), answer["output"]
