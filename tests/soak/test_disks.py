"""On a disk that is full, every command says so in a line, and leaves nothing that is taken for more than it is."""

import csv
import sys

import pytest

from fume_jax.inference.jax_backends import WeightsBackend
from fume_jax.inference.predictor import pretrained_examples
from tests.inference.test_backends import card_and_model
from tests.runtime.test_preflight import on_small_disk
from tests.soak.tally import TALLY

FULL = "The disk is full"


def command(module, *arguments):
    return " ".join([sys.executable, "-m", "tests.tiny", module, *map(str, arguments)])


def assert_plain(result, codes):
    """A line for the user, and one of these exit codes, which the shell prints."""
    code = int(result.stdout.rpartition("code ")[2].split()[0])
    assert code in codes, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr, result.stderr
    assert FULL in result.stderr or "No space left on device" in result.stdout, result.stdout + result.stderr
    return code


def check_predict(disk, size):
    examples = next(iter(pretrained_examples().values()))["co2"].parent
    out = disk / "out"
    words = command("fume_jax.predict", f"--co2={examples}", f"--ch4={examples}", f"--output={out}")
    copy = f"cat {out}/predictions.csv 2>/dev/null | tr -d '\\r' | tr '\\n' '~' ; find {disk} -name '*.part'"
    result = on_small_disk(disk, size, f"{words} ; echo code $?", copy)
    code = assert_plain(result, (1, 2))
    table = list(csv.DictReader(result.stdout.splitlines()[-1].split("~")))
    assert ".part" not in result.stdout
    # Whatever did not fit, the tables hold every pair, or there are none.
    assert (code == 2) == (len(table) > 1 and all(row["class"] for row in table))


def check_export(disk, size):
    card, model = card_and_model("classification_only")
    model_folder = disk.parent / "model"
    WeightsBackend.write(model_folder, model, card)
    words = command("fume_jax.export", f"--workdir={model_folder}", "--format=torch", f"--output={disk}/m.pth")
    result = on_small_disk(disk, size, f"{words} ; echo code $?", f"ls -A {disk}")
    assert_plain(result, (1,))
    assert result.stdout.rpartition("code 1")[2].split() == []


def check_render(disk, size):
    words = command("datasets.synthetic_ogi", f"--data_dir={disk}", "--name=tiny")
    result = on_small_disk(disk, size, f"{words} ; echo code $?", f"find {disk} -name dataset_info.json")
    code = int(result.stdout.rpartition("code ")[2].split()[0])
    assert code == 1 and "Traceback" not in result.stderr and " disk" in result.stderr, result.stderr
    assert "dataset_info.json" not in result.stdout


CHECKS = {"predict": check_predict, "export": check_export, "render": check_render}
SIZES = {"predict": ["16k", "40k", "120k", "300k", "500k"], "export": ["16k", "100k", "1m"], "render": ["64k", "400k"]}


def check(name, size, folder):
    disk = folder / "disk"
    disk.mkdir()
    with TALLY.case(f"full disks, {name}", size):
        CHECKS[name](disk, size)


@pytest.mark.slow
def test_a_disk_that_is_full_after_the_tables_costs_pictures_alone(tmp_path):
    check("predict", "120k", tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize(("name", "size"), [(name, size) for name, sizes in SIZES.items() for size in sizes])
def test_every_command_says_that_the_disk_is_full(tmp_path, name, size):
    check(name, size, tmp_path)
