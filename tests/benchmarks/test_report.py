"""A report has every row that was found, whatever else fails."""

import json

from absl.testing import flagsaver

from benchmarks import report
from fume_jax.runtime.errors import DONE, PARTLY_DONE


def test_rows_are_on_disk_as_they_come_and_outlive_what_fails(tmp_path, capsys):
    def fail():
        raise ValueError("no memory")

    with flagsaver.flagsaver((report._OUTPUT, str(tmp_path))):
        found = report.Report(device="by hand")
        found.add("speed", batch=8, ms=123.4, ratio=None)
        assert found.attempt("the rest", fail) is None
        rows = json.loads((tmp_path / "results.json").read_text())
    assert rows["environment"][0].keys() >= {"cpu", "cores", "load", "jax", "torch", "device"}
    assert rows["speed"] == [{"batch": 8, "ms": 123.4, "ratio": None}]
    assert rows["left out"] == [{"name": "the rest", "reason": "ValueError: no memory"}]
    found.add("speed", batch=2, note="of another kind")
    assert found.finish() == PARTLY_DONE
    assert "| batch | ms | ratio | note |\n| --- | --- | --- | --- |\n| 8 | 123 |  |  |\n" in capsys.readouterr().out


def test_nothing_is_started_after_the_budget():
    found = report.Report(seconds=-1)
    assert found.attempt("late", lambda: 1) is None
    assert found.results["left out"] == [{"name": "late", "reason": "out of time"}]
    assert found.finish() == DONE
    assert report.Report().attempt("in time", lambda x: x + 1, 1) == 2
