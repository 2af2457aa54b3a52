import pytest

from tests.soak.tally import TALLY


@pytest.fixture
def tally():
    return TALLY


def pytest_terminal_summary(terminalreporter):
    if TALLY.rows:
        terminalreporter.section("area x tried x fine x wrong")
        terminalreporter.write_line(TALLY.table())
