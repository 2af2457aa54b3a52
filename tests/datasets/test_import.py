"""Labels of every format become the same recordings; what is at fault, is missing or would be lost is said."""

import ast
import csv
import importlib
import inspect
import pkgutil
import shutil

import numpy as np
import pytest
from PIL import Image

from datasets.fume_ogi import import_checks, importing, merging, recordings
from datasets.fume_ogi.faults import IMPORT_KINDS
from fume_jax.data import labels
from fume_jax.data.labels import coco, cvat, labelme
from fume_jax.data.labels.manifest import Reviewed, mask_digest, write_manifest
from fume_jax.schema import GAS, IGNORE, NOT_GAS, TUBE
from tests.commands import assert_refused, run

HEIGHT, WIDTH = 24, 32
BOTTLES = [(f"{bottle}_{gas}_pH{ph}") for bottle, ph in (("b1", 6.5), ("b2", 5.9)) for gas in ("co2", "ch4")]
FRAMES = [(bottle, name) for bottle in BOTTLES for name in ("f2", "f10")]
FIRST = "masks/b1_pH6.5/f2_co2.png"  # of the first one, as it is imported


def mask_of(number):
    """Gas with a hole and an island, a tube, and pixels that nobody knows."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:14, 6 + number : 20] = GAS
    mask[7:9, 16:18] = 0
    mask[20, 30] = GAS
    mask[8:10, : 6 + number] = TUBE
    mask[14, 6:20] = IGNORE
    return mask


MASKS = {frame: mask_of(number) for number, frame in enumerate(FRAMES)}


def write_images(folder):
    for number, (recording, name) in enumerate(FRAMES):
        path = folder / recording / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH), np.uint8)).save(path)


def as_labelme(folder):
    write_images(folder)
    for number, ((recording, name), mask) in enumerate(MASKS.items()):
        labelme.write(folder / recording / f"{name}.json", f"{name}.png", mask, exact=number % 2 == 0)


def as_coco(folder):
    write_images(folder / "images")
    coco.write(folder / "instances.json", [(f"{bottle}/{name}.png", mask) for (bottle, name), mask in MASKS.items()])


def as_cvat(folder):
    write_images(folder / "images")
    cvat.write(folder / "annotations.xml", [(f"{bottle}/{name}.png", mask) for (bottle, name), mask in MASKS.items()])


def as_folders(folder):
    write_images(folder / "images")
    for (bottle, name), mask in MASKS.items():
        path = folder / "masks" / bottle / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)


def as_yolo(folder):
    """Masks as PNG files of indices."""
    as_folders(folder)
    (folder / "data.yaml").write_text("path: .\ntrain: images\nmasks_dir: masks\nnames: [background, tube, gas]\n")


FORMATS = {"labelme": as_labelme, "coco": as_coco, "cvat": as_cvat, "folders": as_folders, "yolo": as_yolo}


def import_from(source, *arguments, format="labelme"):
    paths = [f"--source={source}", f"--output={source.parent / 'own'}", f"--report={source.parent / 'faults.csv'}"]
    return run("datasets.fume_ogi.import_labels", f"--from={format}", *paths, *arguments)


def rows_of(source):
    with (source.parent / "own" / "annotations.csv").open(newline="") as file:
        return {row["mask_path"]: row for row in csv.DictReader(file)}


def mask_in(source, path=FIRST):
    return np.asarray(Image.open(source.parent / "own" / path))


def draw(source, mask, bottle=BOTTLES[0], name="f2"):
    labelme.write(source / bottle / f"{name}.json", f"{name}.png", mask, exact=True)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_the_same_recordings(format, tmp_path):
    source = tmp_path / "source"
    FORMATS[format](source)
    result = import_from(source, format=format)
    assert result.returncode == 0, result.stderr
    rows = rows_of(source)
    assert len(rows) == len(MASKS)
    for (bottle, name), mask in MASKS.items():
        number, gas, ph = bottle.split("_")
        path = f"masks/{number}_{ph}/{name}_{gas}.png"
        np.testing.assert_array_equal(mask_in(source, path), mask)
        row = rows[path]
        assert row["gas_type"] == gas and f"pH{row['ph_value']}" == ph
        assert row["class_name"] == {"pH6.5": "Healthy", "pH5.9": "Transitional"}[ph]
        assert (row["recording_id"], row["original_sample_id"]) == (f"{number}_{ph}", f"{number}_{ph}/{name}")
        assert row["label_source"] == "person"


def test_what_is_imported_can_be_prepared(imported, tmp_path):
    arguments = [f"--source={imported.parent / 'own'}", f"--data_dir={tmp_path}", f"--report={tmp_path / 'faults.csv'}"]
    result = run("datasets.fume_ogi", *arguments, "--pairing=id", "--allow=empty_class,duplicate_frame")
    # Two recordings cannot fill three splits; every file was read by then.
    assert_refused(result, "No row is left for", "recording")


def test_fume_import_runs_the_command(imported, tmp_path):
    result = run("fume_jax", "import", "--from=labelme", f"--source={imported}", f"--output={tmp_path / 'own'}")
    assert result.returncode == 0, result.stderr
    assert "8 labelled frames of 2 recordings" in result.stdout and "8 added" in result.stdout


def test_where_nobody_outlined_a_tube_background_may_be_tube(source):
    draw(source, np.where(MASKS[FRAMES[0]] == TUBE, 0, MASKS[FRAMES[0]]))
    assert import_from(source, "--tube=unknown", "--replace").returncode == 0
    expected = np.where(np.isin(MASKS[FRAMES[0]], (0, TUBE)), NOT_GAS, MASKS[FRAMES[0]])
    np.testing.assert_array_equal(mask_in(source), expected)
    np.testing.assert_array_equal(mask_in(source, "masks/b1_pH6.5/f10_co2.png"), MASKS[FRAMES[1]])


def table(source, text):
    (source / "recordings.csv").write_text(text)


def rename(source, old, new):
    (source / old).rename(source / new)


NO_PH = ["nothing says the ph of b1_co2", "recordings.csv", "--ph=PH, the one that was measured", "Masks without pH"]
FAULTS = {
    "label": (lambda s: labelme_with(s, "smoke"), ["label", "smoke", "--labels="]),
    "gas in name and table": (
        lambda s: table(s, f"recording,gas\n{BOTTLES[0]},ch4\n"),
        ["gas", "says ch4", "says co2"],
    ),
    "no gas": (lambda s: rename(s, BOTTLES[0], "b1_pH6.5"), ["nothing says the gas of b1_pH6.5", "--gas=co2"]),
    "no pH": (lambda s: rename(s, BOTTLES[0], "b1_co2"), NO_PH),
    "pH": (lambda s: table(s, f"recording,ph\n{BOTTLES[0]},65\n"), ["ph", "65"]),
    "class": (lambda s: rename(s, BOTTLES[0], "b1_co2_pH6.0"), ["pH 6 has no usual class", "class_name"]),
    "image": (lambda s: (s / BOTTLES[0] / "f2.png").unlink(), ["missing_file", "f2.png"]),
    "damage": (lambda s: (s / BOTTLES[0] / "f2.png").write_bytes(b"\x89PNG"), ["unreadable_file", "f2.png"]),
    "size": (
        lambda s: Image.new("L", (8, 8)).save(s / BOTTLES[0] / "f2.png"),
        ["size", "8x8", "use the image that was labelled"],
    ),
    "twice": (lambda s: shutil.copytree(s / BOTTLES[0], s / "b1_pH6.5_co2"), ["duplicate", "f2_co2.png"]),
    "nothing known": (lambda s: draw(s, np.full_like(MASKS[FRAMES[0]], IGNORE)), ["mask_values", "255, unknown"]),
    "table": (lambda s: table(s, f"recording,ph\n{BOTTLES[0]},6.5\n{BOTTLES[0]},6.2\n"), ["row 3", "there already"]),
}


def labelme_with(source, name):
    path = source / BOTTLES[0] / "f2.json"
    path.write_text(path.read_text().replace('"gas"', f'"{name}"'))


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named_and_nothing_is_imported_half(fault, source):
    plant, words = FAULTS[fault]
    plant(source)
    shutil.rmtree(source.parent / "own")
    assert_refused(import_from(source), *words)
    assert not (source.parent / "own").exists()


def test_all_faults_are_told_at_once(source):
    labelme_with(source, "smoke")
    rename(source, BOTTLES[1], "b1_pH6.5")
    result = import_from(source)
    assert_refused(result, "smoke", "nothing says the gas", "faults.csv")
    with (source.parent / "faults.csv").open(newline="") as file:
        assert {row["kind"] for row in csv.DictReader(file)} == {"label", "gas"}


@pytest.mark.parametrize(
    "argument, words",
    [
        ("--values=255", ["255", "255:gas,0:background"]),
        ("--values=255:smoke", ["255:smoke", "background, tube, gas"]),
        ("--values=255:gas,255:tube", ["two classes"]),
        ("--colors=ff8800:gas", ["#ff8800:gas"]),
        ("--source=nowhere", ["nowhere"]),
        ("--recordings=nowhere.csv", ["nowhere.csv"]),
        ("--review=nowhere", ["nowhere", "fume review"]),
        ("--empty_is_background", ["coco"]),
    ],
)
def test_flags_without_meaning_are_refused(imported, argument, words):
    assert_refused(import_from(imported, argument), *words)


def test_a_table_says_what_names_do_not(source, tmp_path):
    rename(source, BOTTLES[0], "first")
    table(source, "Recording;gas;ph;class_name;subject\nfirst;CO2;6,0;healthy;cow7\n")
    shutil.rmtree(source.parent / "own")
    assert import_from(source).returncode == 0
    row = rows_of(source)["masks/first/f2_co2.png"]
    assert (row["ph_value"], row["class_id"], row["subject_id"]) == ("6", "0", "cow7")


def review(source, mask):
    """Notes that the first frame was chosen, and that this mask was predicted for it."""
    image = source / "first_f2_co2.png"
    (source / BOTTLES[0] / "f2.png").rename(image)
    (source / BOTTLES[0] / "f2.json").unlink()
    labelme.write(image.with_suffix(".json"), image.name, mask, exact=False)
    chosen = {"time": None, "source": "b1.png", "frame_index": -1, "mask_digest": mask_digest(mask), "model": "m"}
    scores = dict.fromkeys(("uncertainty", "jump", "disagreement", "score"), 0.5)
    row = Reviewed(image.name, "b1_pH6.5", "co2", "f2", **chosen, **scores, ph=6.5)
    write_manifest(source / "review.csv", [row])


def test_a_prediction_that_nobody_changed_never_replaces_what_a_person_drew(source):
    review(source, np.zeros_like(MASKS[FRAMES[0]]))
    result = import_from(source)
    assert result.returncode == 0, result.stderr
    assert "1 kept" in result.stdout and "7 unchanged" in result.stdout
    assert rows_of(source)[FIRST]["label_source"] == "person"
    np.testing.assert_array_equal(mask_in(source), MASKS[FRAMES[0]])


def test_a_person_replaces_a_prediction_and_may_confirm_it(source):
    shutil.rmtree(source.parent / "own")
    predicted = np.where(MASKS[FRAMES[0]] == IGNORE, 0, MASKS[FRAMES[0]])
    review(source, predicted)
    result = import_from(source)
    assert "1 masks are predictions" in result.stdout
    assert rows_of(source)[FIRST]["label_source"] == "prediction"
    result = import_from(source, "--confirm")
    assert "8 unchanged" in result.stdout
    assert rows_of(source)[FIRST]["label_source"] == "person"
    shutil.rmtree(source.parent / "own")
    import_from(source)
    labelme.write(source / "first_f2_co2.json", "first_f2_co2.png", MASKS[FRAMES[0]], exact=True)
    assert "1 replaced" in import_from(source).stdout
    assert rows_of(source)[FIRST]["label_source"] == "person"
    np.testing.assert_array_equal(mask_in(source), MASKS[FRAMES[0]])


def test_labels_of_two_people_that_differ_are_a_conflict(source):
    other = MASKS[FRAMES[0]] * (MASKS[FRAMES[0]] == TUBE)
    draw(source, other)
    before = (source.parent / "own" / "annotations.csv").read_bytes()
    result = import_from(source)
    assert result.returncode == 2
    assert result.stdout.count(FIRST) == 1 and result.stdout.count("--replace") == 1
    assert (source.parent / "own" / "annotations.csv").read_bytes() == before
    np.testing.assert_array_equal(mask_in(source), MASKS[FRAMES[0]])
    replaced = import_from(source, "--replace")
    assert replaced.returncode == 0 and "1 replaced" in replaced.stdout and "conflict" not in replaced.stdout
    np.testing.assert_array_equal(mask_in(source), other)
    assert import_from(source).returncode == 0


def test_a_mask_that_was_imported_and_is_damaged_is_named(source):
    (source.parent / "own" / FIRST).write_bytes(b"")
    assert_refused(import_from(source), FIRST, "Remove it")


def test_rows_of_other_recordings_and_their_further_columns_stay(source):
    path = source.parent / "own" / "annotations.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([f"{lines[0]},note", *(f"{line},seen" for line in lines[1:])]) + "\n")
    for bottle in BOTTLES[1:]:
        shutil.rmtree(source / bottle)
    draw(source, MASKS[FRAMES[1]])
    assert import_from(source, "--replace").returncode == 0
    rows = rows_of(source)
    assert len(rows) == len(MASKS) and all(row["note"] == "seen" for row in rows.values())


def test_a_split_that_the_format_gives_is_kept(source):
    shutil.rmtree(source.parent / "own")
    for bottle, split in zip(BOTTLES, ("train", "train", "val", "test"), strict=True):
        (source / split).mkdir(exist_ok=True)
        rename(source, bottle, f"{split}/{bottle}")
    assert import_from(source).returncode == 0
    assert {row["split"] for row in rows_of(source).values()} == {"train", "val", "test"}
    own = source.parent / "own"
    arguments = [f"--source={own}", f"--data_dir={own}", "--split=published", f"--report={own / 'r.csv'}"]
    result = run("datasets.fume_ogi", *arguments, "--allow=empty_class,duplicate_frame,no_gas")
    assert result.returncode == 0, result.stderr
    assert "train         Healthy" in result.stdout and "test          Transitional" in result.stdout


def test_values_have_the_meaning_that_the_user_gives_and_nearest_ones_are_counted(tmp_path):
    source = tmp_path / "source"
    as_folders(source)
    coded = np.array([0, 128, 255], np.uint8)
    for path in source.rglob("masks/*/*.png"):
        known = np.where(np.asarray(Image.open(path)) == IGNORE, 0, np.asarray(Image.open(path)))
        Image.fromarray(coded[known]).save(path)
    first = source / "masks" / BOTTLES[0] / "f2.png"
    expected = np.where(MASKS[FRAMES[0]] == IGNORE, 0, MASKS[FRAMES[0]])
    blurred = np.asarray(Image.open(first)).copy()
    blurred[4, 6:9] = 200, 250, 60  # nearest to gas, gas and background
    Image.fromarray(blurred).save(first)
    values = "--values=255:gas,128:tube,0:background"
    assert_refused(import_from(source, values, format="folders"), "mask_values", "200", "--nearest")
    result = import_from(source, values, "--nearest", format="folders")
    assert result.returncode == 0, result.stderr
    assert "3 pixels (0.05%) took the nearest value" in result.stdout
    expected[4, 8] = 0
    np.testing.assert_array_equal(mask_in(source), expected)
    assert "255" in import_from(source, format="folders").stderr


def kinds_in(module):
    """Kinds of faults that a module names: the first argument of what makes one, if it is a constant."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
        if name in ("fault", "Fault", "UnusableMask"):
            kind = node.args[0]
            yield kind.value if isinstance(kind, ast.Constant) else getattr(module, getattr(kind, "id", ""), None)


def test_every_kind_of_fault_is_listed_and_every_one_listed_occurs():
    names = [module.name for module in pkgutil.iter_modules(labels.__path__)]
    formats = [importlib.import_module(f"{labels.__name__}.{name}") for name in names]
    found = {
        kind for module in (importing, import_checks, merging, recordings, *formats) for kind in kinds_in(module)
    } - {None}
    # That a subject contradicts itself has no constant of its own.
    assert found | {"subject"} == IMPORT_KINDS.keys()


def test_what_is_said_of_a_frame_may_change_without_its_mask(source):
    table(source, f"recording,ph,class_name,subject\n{BOTTLES[0]},6.5,Acidotic,cow7\n")
    result = import_from(source)
    assert result.returncode == 0 and "8 unchanged" in result.stdout
    assert "2 frames that were there have another pH, class, subject or split now" in result.stdout
    row = rows_of(source)[FIRST]
    assert (row["class_id"], row["subject_id"]) == ("2", "cow7")
    assert "have another" not in import_from(source).stdout
