"""Cells of tables, in the spellings that spreadsheets and scripts give to one value."""

import math

import pytest

from fume_jax.data.table import as_bool, as_id, as_number, is_shortened

NUMBERS = {"5.9": 5.9, "5,9": 5.9, "+5.9": 5.9, "-5.9": -5.9, "5.": 5, ".5": 0.5, ",5": 0.5, "-.5": -0.5, "7": 7}
NUMBERS |= {"1e-3": 1e-3, "1E+3": 1e3, ".5e1": 5, "007": 7}


@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_is_read_as_programs_write_it(text):
    assert as_number(text) == NUMBERS[text]


@pytest.mark.parametrize(
    "text", ["", ".", ",", "+", "e5", ".e5", "1.2.3", "1,234.5", "1 000", "0x1", "1_0", "inf", "nan"]
)
def test_what_is_no_number_is_none(text):
    assert math.isnan(as_number(text))


def test_ids_and_truth_values():
    assert [as_id(text) for text in ("7", "7.0", "007", "7,", "a7", "7.5")] == ["7", "7", "7", "7", "a7", "7.5"]
    assert [as_bool(text) for text in ("True", "1.0", "no", "0", "")] == [True, True, False, False, None]
    assert is_shortened("2.02E+16") and not is_shortened("2.02") and not is_shortened("E+16")
