"""Output of a console, quiet or not."""

from fume_jax.runtime.console import Console


def test_a_quiet_console_only_warns(capsys):
    for quiet in (False, True):
        console = Console(quiet=quiet)
        console.info("said")
        console.warn("warned")
        assert list(console.over([1, 2], total=2, unit="batch", desc="over")) == [1, 2]
        assert capsys.readouterr().out == ("" if quiet else "said\n") + "WARNING: warned\n"
