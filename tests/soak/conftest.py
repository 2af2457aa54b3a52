from tests.soak.tally import TALLY

# Areas of the files whose tests are a case each; the others count their cases themselves.
AREAS = {
    "test_sweep.py": "sweeps that fail, are killed and stopped",
    "test_presets.py": "configs and presets, trained",
    "test_layouts.py": "layouts of processes and devices",
    "test_versions.py": "versions",
}


def pytest_runtest_logreport(report):
    area = AREAS.get(report.location[0].rpartition("/")[2])
    if area and report.when == "call" and not report.skipped:
        TALLY.add(area, report.location[2] if report.failed else None)


def pytest_terminal_summary(terminalreporter):
    if TALLY.rows:
        terminalreporter.section("area x tried x fine x wrong")
        terminalreporter.write_line(TALLY.table())
