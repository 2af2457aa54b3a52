"""Lists of recordings: one folder each, one table, and the same table however often the command was ended."""

import csv
import dataclasses
import itertools
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fume_jax.data.recording_list import read_recordings
from fume_jax.data.sources import open_source
from fume_jax.inference.ensemble import Mirrored
from fume_jax.inference.predictor import Predictor
from fume_jax.inference.recording import find_offset, predict_recording
from fume_jax.inference.recordings import predict_recordings, write_table
from fume_jax.inference.summary import SHOWN
from fume_jax.runtime.errors import DONE, NOTHING_DONE, PARTLY_DONE, RUN_AGAIN, UserError
from tests.inference.test_predictor import CARD, TRAINING, Known

HEIGHT, WIDTH = 64, 80


def film(columns):
    """Frames of 8 bits, the i-th of so many columns of gas, beside dark ones."""
    frames = np.zeros((len(columns), HEIGHT, WIDTH), np.uint8)
    for frame, count in zip(frames, columns, strict=True):
        frame[:, :count] = 255
    return frames


def write_film(path, columns, rate=10.0):
    np.savez(path, frames=film(columns), rate=rate)


@pytest.fixture
def listed(tmp_path):
    """A list of three recordings, the second of which is damaged."""
    folder = tmp_path / "films"
    folder.mkdir()
    write_film(folder / "a_co2.npz", [0] * 15 + [20] * 15)
    write_film(folder / "a_ch4.npz", [0] * 30)
    (folder / "b.npz").write_bytes(b"nothing")
    write_film(folder / "c.npz", [40] * 5)
    rows = ["id,co2,ch4,mm_per_pixel", "a 1,a_co2.npz,a_ch4.npz,", "b,b.npz,,", "=c,,c.npz,0.5"]
    (folder / "list.csv").write_text("\n".join(rows))
    return folder / "list.csv"


def predict(table, output, backend=None, **options):
    recordings = read_recordings(str(table))
    return predict_recordings(
        Predictor(backend or Known()), recordings, str(output), batch_size=4, products=(), **options
    )


def table_of(output):
    return list(csv.DictReader((output / "recordings.csv").read_text().splitlines()))


def test_each_recording_has_a_folder_and_a_row(listed, tmp_path):
    output = tmp_path / "out"
    assert predict(listed, output) == PARTLY_DONE
    a, b, c = table_of(output)
    assert (a["id"], a["class"], a["frames"], a["frames_with_gas"], a["frames_used"]) == (
        "a 1",
        "Acidotic",
        "30",
        "15",
        "15",
    )
    assert float(a["co2_area_median"]) == 20 * HEIGHT and a["co2_onsets"] == "1.5"
    assert float(a["co2_gas_time_share"]) == pytest.approx(1.45 / 2.9, abs=1e-5)
    assert (a["ch4_area_median"], a["ch4_onsets"], a["ch4_gas_time_share"]) == ("", "", "0")
    assert b["class"] == "" and "b.npz is damaged" in b["fault"]
    assert c["id"] == "'=c" and float(c["ch4_area_mm2_median"]) == 40 * HEIGHT / 4
    assert a["ch4_area_mm2_median"] == "" and c["fault"] == ""
    page = (output / "a 1" / "recording.html").read_text()
    assert page.count("<figure>") == SHOWN and "Acidotic" in page and "src='data:image/png" in page
    assert "<h1>=c</h1>" in (output / "=c" / "recording.html").read_text()


def test_what_is_done_is_skipped_and_the_table_is_the_same(listed, tmp_path, capsys):
    whole = tmp_path / "whole"
    predict(listed, whole)
    # A process that was killed in the third recording: its folder has no summary, and there is no table.
    killed = tmp_path / "killed"
    shutil.copytree(whole, killed)
    (killed / "recordings.csv").unlink()
    (killed / "=c" / "recording.json").unlink()
    (killed / "=c" / "predictions.csv.part").write_text("half a row")
    before = (killed / "a 1" / "recording.json").stat().st_mtime_ns
    capsys.readouterr()
    assert predict(listed, killed) == PARTLY_DONE
    assert "2 of 3 recordings to do" in capsys.readouterr().out, "also the one that could not be predicted"
    assert (killed / "recordings.csv").read_bytes() == (whole / "recordings.csv").read_bytes()
    assert (killed / "a 1" / "recording.json").stat().st_mtime_ns == before
    assert not list(killed.rglob("*.part"))


def test_shares_write_no_table_and_the_command_without_share_writes_the_same_one(listed, tmp_path, capsys):
    write_film(listed.parent / "b.npz", [10] * 3)
    whole, folder = tmp_path / "whole", tmp_path / "shares"
    predict(listed, whole)
    for k in (1, 0):
        assert predict(listed, folder, share=(k, 2)) == DONE
        assert capsys.readouterr().out.endswith(
            f"When all shares are done, the same command without --share writes {folder}/recordings.csv.\n"
        )
    assert {path.name for path in folder.iterdir()} == {"a 1", "b", "=c"}
    before = [path.stat().st_mtime_ns for path in sorted(folder.rglob("recording.json"))]
    assert predict(listed, folder) == DONE
    assert "0 of 3 recordings to do" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in sorted(folder.rglob("recording.json"))] == before
    assert (folder / "recordings.csv").read_bytes() == (whole / "recordings.csv").read_bytes()
    assert {path.name for path in folder.iterdir()} == {"a 1", "b", "=c", "recordings.csv"}


def test_a_share_of_a_damaged_recording_alone_has_done_nothing(listed, tmp_path):
    assert [predict(listed, tmp_path / "out", share=(k, 2)) for k in (1, 0)] == [NOTHING_DONE, DONE]
    write_table(tmp_path / "out", read_recordings(str(listed)))
    assert "b.npz is damaged" in table_of(tmp_path / "out")[1]["fault"]


def test_processes_that_write_the_table_at_once_leave_it_whole(listed, tmp_path):
    output, recordings = tmp_path / "out", read_recordings(str(listed))
    predict(listed, output)
    expected = (output / "recordings.csv").read_bytes()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write_table(output, recordings), range(100)))
    assert (output / "recordings.csv").read_bytes() == expected
    assert not list(output.glob(".*"))


def test_a_stop_ends_it_in_a_recording_which_then_begins_anew(listed, tmp_path):
    class Stop:
        def __init__(self):
            self._asked = itertools.count()

        @property
        def requested(self):
            return next(self._asked) > 4

    output = tmp_path / "out"
    assert predict(listed, output, stop=Stop()) == RUN_AGAIN
    assert not list(output.rglob("recording.json")) and table_of(output) == []
    predict(listed, output)
    assert len(table_of(output)) == 3


def test_other_settings_are_refused(listed, tmp_path):
    predict(listed, tmp_path / "out")
    listed.write_text(listed.read_text().replace("0.5", "0.25"))
    with pytest.raises(UserError, match=r"=c was predicted with other settings: mm_per_pixel was 0\.5 and is 0\.25"):
        predict(listed, tmp_path / "out")


def test_a_prediction_of_an_earlier_version_has_no_digest_and_counts(listed, tmp_path):
    first, second = (Known(dataclasses.replace(CARD, digest=digest)) for digest in ("", "a"))
    predict(listed, tmp_path / "out", first)
    assert predict(listed, tmp_path / "out", second) == PARTLY_DONE
    predict(listed, tmp_path / "other", second)
    with pytest.raises(UserError, match="digest was a and is b"):
        predict(listed, tmp_path / "other", Known(dataclasses.replace(CARD, digest="b")))


def test_a_recording_that_is_mended_is_predicted(listed, tmp_path):
    predict(listed, tmp_path / "out")
    write_film(listed.parent / "b.npz", [10] * 3)
    assert predict(listed, tmp_path / "out") == DONE
    assert [row["fault"] for row in table_of(tmp_path / "out")] == ["", "", ""]


def test_a_summary_tells_scale_and_units_of_deep_frames(tmp_path):
    frames = np.where(film([0, 20, 40, 20]) > 0, 5550, 3600).astype(np.uint16)
    frames[:, :, 60:] = 3000
    np.save(tmp_path / "deep.npy", frames)
    source = open_source(str(tmp_path / "deep.npy"), None, rate=5.0)
    assert predict_recording(Predictor(Known()), source, str(tmp_path / "out"), batch_size=2, products=()) == DONE
    found = json.loads((tmp_path / "out" / "recording.json").read_text())
    assert found["range"] == {"co2": [3000, 5550]} and found["code"] == DONE
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    assert [float(row["co2_contrast_mean"] or 0) for row in rows] == [0, 1950, 1950, 1950]
    assert found["summary"]["co2_contrast_median"] == 1950


def releases(seed, shift, count=300, rate=30.0):
    """Columns of gas of a flickering release, seen so many frames later."""
    rng = np.random.default_rng(seed)
    flicker = np.convolve(rng.normal(size=count + 400), np.hanning(15), "valid")
    columns = 40 + 12 * flicker / flicker.std()
    return np.clip(columns[150 - shift : 150 - shift + count].round(), 1, 79).astype(int)


@pytest.mark.parametrize("shift", [-40, 0, 75])
def test_an_offset_is_found_from_the_gas_and_pairs_the_films(tmp_path, shift, capsys):
    for gas, columns in (("co2", releases(1, 0)), ("ch4", releases(1, shift))):
        write_film(tmp_path / f"{gas}.npz", columns, 30.0)
    paths = [str(tmp_path / f"{gas}.npz") for gas in ("co2", "ch4")]
    offset = find_offset(Predictor(Known()), *paths, batch_size=16)
    assert offset.seconds == pytest.approx(shift / 30, abs=1 / 30)
    assert "the gas areas correlate by" in capsys.readouterr().out
    pairs = [pair for pair in open_source(*paths, offset=offset.seconds).pairs if len(pair.frames) == 2]
    assert len(pairs) == 300 - abs(shift)
    assert all((pair.frames["co2"] == pair.frames["ch4"]).all() for pair in pairs)


def test_an_offset_that_is_not_clear_is_refused(tmp_path):
    for gas, seed in (("co2", 1), ("ch4", 2)):
        write_film(tmp_path / f"{gas}.npz", releases(seed, 0), 30.0)
    with pytest.raises(UserError, match=r"is not clear: the gas areas correlate by 0\.\d+ at most"):
        find_offset(Predictor(Known()), *(str(tmp_path / f"{gas}.npz") for gas in ("co2", "ch4")), batch_size=16)


def test_predictions_with_and_without_mirror_images_do_not_mix(listed, tmp_path):
    for first, second in ((Known(), Mirrored(Known())), (Mirrored(Known()), Known())):
        output = tmp_path / first.card.model
        predict(listed, output, first)
        assert predict(listed, output, first) == PARTLY_DONE
        with pytest.raises(UserError, match=r"other settings: model was .* and is .*mirror images|is fume\."):
            predict(listed, output, second)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_tables_say_who_abstains_and_which_frames_are_unlike_training(listed, tmp_path, capsys):
    limits = {"abstain_below": 0.7, "recording_abstain_below": 0.6, "training_frames": TRAINING}
    predict(listed, tmp_path / "out", Known(dataclasses.replace(CARD, **limits)))
    a, b, c = table_of(tmp_path / "out")
    # Both gases make a probability of 25 / 30, one gas one of 5 / 8.
    assert {row["abstain"] for row in rows_of(tmp_path / "out" / "a 1")} == {"no"}
    assert {row["abstain"] for row in rows_of(tmp_path / "out" / "=c")} == {"yes"}
    assert (a["abstain"], b["abstain"], c["abstain"]) == ("no", "", "no")
    assert list(a)[:4] == ["id", "class", "abstain", "unlike_training"]
    assert (a["unlike_training"], a["frames_unlike_training"]) == ("grey", "30")
    assert (c["unlike_training"], c["frames_unlike_training"]) == ("", "0"), "training had no CH4"
    assert "WARNING: Half of the frames or more are unlike those of training: grey" in capsys.readouterr().out
    predict(listed, tmp_path / "unsure", Known(dataclasses.replace(CARD, recording_abstain_below=0.63)))
    assert [row["abstain"] for row in table_of(tmp_path / "unsure")] == ["no", "", "yes"]
    assert "too unsure to be used" in (tmp_path / "unsure" / "=c" / "recording.html").read_text()
    assert "abstain" not in rows_of(tmp_path / "unsure" / "=c")[0]


def test_without_limits_and_training_frames_the_tables_lack_their_columns(listed, tmp_path):
    predict(listed, tmp_path / "out")
    columns = {*table_of(tmp_path / "out")[0], *rows_of(tmp_path / "out" / "=c")[0]}
    assert not {"abstain", "unlike_training", "frames_unlike_training"} & columns
