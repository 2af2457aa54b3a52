import pytest
from absl import flags


@pytest.fixture(autouse=True)
def flags_have_their_defaults():
    """Flags can be read though no command has parsed them."""
    flags.FLAGS.mark_as_parsed()
