"""Recordings are predicted whole and in order, whatever is missing or damaged in them."""

import csv
import dataclasses
import itertools
import json
import os
import signal
import threading
import time

import av
import cv2
import numpy as np
import pytest

from fume_jax.data.images import UnreadableFrame
from fume_jax.data.sources import Pair, Source, open_source
from fume_jax.data.video import VideoWriter
from fume_jax.inference.predictor import Predictor
from fume_jax.inference.recording import predict_pairs, predict_recording, to_record
from fume_jax.runtime.errors import DONE, NOTHING_DONE, PARTLY_DONE, RUN_AGAIN, UserError
from fume_jax.runtime.preemption import StopRequest
from tests.inference.test_predictor import CARD, Known, half_bright


def recording(count, unreadable=()):
    """Pairs, the i-th of them of i columns of gas, some of them unreadable."""
    for i in range(count):
        frame = np.zeros((64, 80, 1), np.uint8)
        frame[:, :i] = 255
        yield Pair(f"frame_{i}", i / 10, {"co2": UnreadableFrame(f"frame {i}") if i in unreadable else frame})


def results(pairs, batch_size):
    backend, seen = Known(), []

    def write(pair):
        seen.append(pair.name)
        return pair.name

    predicted = []
    for pair, written in predict_pairs(Predictor(backend), pairs, batch_size, write):
        assert written == (pair.name if pair.prediction else None)
        predicted.append(pair)
    return predicted, backend, seen


@pytest.mark.parametrize("batch_size", [1, 3, 4, 20])
@pytest.mark.parametrize("unreadable", [(), (0,), (4, 5, 6, 7), (11,), range(12)])
def test_every_pair_comes_once_in_order_with_its_own_prediction(batch_size, unreadable):
    predicted, backend, seen = results(recording(12, unreadable), batch_size)
    assert [pair.name for pair in predicted] == [f"frame_{i}" for i in range(12)]
    for i, pair in enumerate(predicted):
        if i in unreadable:
            assert pair.prediction is None and pair.faults == {"co2": f"frame {i}"}
        else:
            assert pair.prediction.plumes["co2"].area_pixels == 64 * i
    assert sorted(seen) == sorted(pair.name for pair in predicted if pair.prediction)
    assert set(backend.batches) <= {batch_size}  # a backend may have to compile for every other size


def test_a_recording_is_read_as_it_is_predicted_not_before():
    read = []

    def pairs():
        for pair in recording(80):
            read.append(pair.name)
            yield pair

    predicted = predict_pairs(Predictor(Known()), pairs(), 2, lambda pair: None)
    next(predicted)
    assert len(read) < 30
    predicted.close()


@pytest.mark.parametrize("slow", ["the model", "what is written"])
def test_frames_are_read_while_others_are_predicted_or_written(slow):
    """The first batch waits in the model, or in writing, until a pair of a later one was read."""
    later = threading.Event()

    def pairs():
        for pair in recording(12):
            if pair.name == "frame_5":
                later.set()
            yield pair

    class Waiting(Known):
        def __call__(self, **inputs):
            assert slow != "the model" or later.wait(10)
            return super().__call__(**inputs)

    def write(pair):
        assert slow != "what is written" or later.wait(10)

    assert len(list(predict_pairs(Predictor(Waiting()), pairs(), 2, write))) == 12


def test_the_model_works_while_what_it_said_before_is_taken():
    """Whoever holds a batch's first pair finds a later batch in the model, which waits until that pair was held."""
    ahead, calls = 3, itertools.count()
    begun, held = ([threading.Event() for _ in range(20)] for _ in range(2))

    class Waiting(Known):
        def __call__(self, **inputs):
            call = next(calls)
            begun[call].set()
            assert call < ahead or held[call - ahead].wait(10)
            return super().__call__(**inputs)

    predicted = predict_pairs(Predictor(Waiting()), recording(40), 2, lambda pair: None)
    for batch, _ in enumerate(itertools.islice(predicted, 0, None, 2)):
        assert begun[min(batch + ahead, 19)].wait(10)
        held[batch].set()


def test_time_is_shared_by_the_pairs_of_a_batch_not_by_what_fills_it_up():
    class Slow(Known):
        def __call__(self, **inputs):
            time.sleep(0.04)
            return super().__call__(**inputs)

    (alone, _), *_ = predict_pairs(Predictor(Slow()), recording(1), 4, lambda pair: None)
    assert alone.prediction.milliseconds >= 40
    together = [pair.prediction.milliseconds for pair, _ in predict_pairs(Predictor(Slow()), recording(4), 4, str)]
    assert len(set(together)) == 1 and 10 <= together[0] < alone.prediction.milliseconds


def test_an_error_in_writing_ends_the_prediction():
    def full(pair):
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        list(predict_pairs(Predictor(Known()), recording(40), 4, full))


def test_a_record_tells_what_was_there():
    predicted, _, _ = results([Pair("a", None, {"ch4": half_bright(64, 80), "co2": UnreadableFrame("x")})], 1)
    record = to_record(predicted[0], CARD)
    assert (record["frame"], record["time"], record["co2"], record["ch4"]) == ("a", None, "unreadable", "read")
    assert (record["class"], record["Acidotic"]) == ("Acidotic", 0.625)
    assert record["co2_gas_pixels"] is record["co2_centroid_x"] is record["co2_direction_degrees"] is None
    assert record["ch4_gas_pixels"] == 64 * 40 and record["ch4_gas_fraction"] == 0.5
    assert (record["ch4_centroid_x"], record["ch4_centroid_y"]) == (59.5, 31.5)
    assert record["co2_parts"] is record["co2_dispersion_pixels"] is None
    assert record["ch4_parts"] == 1 and record["ch4_dispersion_pixels"] == 21.8  # of 40 x 64 pixels
    predicted, _, _ = results([Pair("a", 1.0, {"ch4": half_bright(64, 80)})], 1)
    assert to_record(predicted[0], CARD)["co2"] == "absent"


def write_video(path, numbers):
    with VideoWriter(path, 10) as writer:
        for i in numbers:
            picture = np.zeros((96, 128, 3), np.uint8)
            picture[:, : 4 * i] = 255
            writer.write(picture, i / 10)


def test_a_video_of_two_gases_leaves_tables_pictures_and_a_video(tmp_path):
    write_video(tmp_path / "co2.mp4", range(20))
    write_video(tmp_path / "ch4.mp4", [i for i in range(20) if i % 5])
    source = open_source(str(tmp_path / "co2.mp4"), str(tmp_path / "ch4.mp4"))
    output = tmp_path / "output"
    assert predict_recording(Predictor(Known()), source, output, batch_size=8) == DONE
    rows = list(csv.DictReader((output / "predictions.csv").read_text().splitlines()))
    lines = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == len(lines) == 20
    for i, (row, line) in enumerate(zip(rows, lines, strict=True)):
        assert row == {key: "" if value is None else str(value) for key, value in line.items()}
        assert line["time"] == pytest.approx(i / 10)
        assert line["ch4"] == ("read" if i % 5 else "absent")
        assert line["co2_gas_pixels"] == pytest.approx(96 * 4 * i, abs=96 * 4)
        assert (line["ch4_gas_pixels"] is None) == (i % 5 == 0)
    for folder in ("masks", "overlays"):
        assert len(list((output / folder).glob("*_co2.png"))) == 20
        assert len(list((output / folder).glob("*_ch4.png"))) == 16
    with av.open(str(output / "annotated.mp4")) as video:
        times = [frame.time for frame in video.decode(video=0)]
    assert times == pytest.approx([i / 10 for i in range(20)])
    assert cv2.imread(str(output / "timeline.png")).std() > 10
    assert not list(output.glob("*.part"))


@pytest.mark.parametrize("cut", ["co2", "ch4"])
def test_of_two_films_one_that_is_cut_off_makes_a_prediction_in_part(tmp_path, capsys, cut):
    paths = {gas: tmp_path / f"{gas}.mp4" for gas in ("co2", "ch4")}
    for path in paths.values():
        write_video(path, range(20))
    paths[cut].write_bytes(paths[cut].read_bytes()[:-400])
    source = open_source(*map(str, paths.values()))
    assert predict_recording(Predictor(Known()), source, tmp_path / "out", batch_size=8) == PARTLY_DONE
    assert f"skipped: {paths[cut]} at " in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    other = "ch4" if cut == "co2" else "co2"
    assert len(lines) == 20 and all(line[other] == "read" for line in lines)
    assert not all(line[cut] == "read" for line in lines)


@pytest.mark.parametrize("products", [(), ("overlays",), ("masks", "video")])
def test_only_what_is_asked_for_is_written(tmp_path, products):
    source = Source(recording(3), ("co2",), rate=10.0)
    assert predict_recording(Predictor(Known()), source, tmp_path, batch_size=2, products=products) == DONE
    always = {"predictions.csv", "predictions.jsonl", "timeline.png", "recording.html", "recording.json"}
    asked = {"annotated.mp4" if product == "video" else product for product in products}
    assert {path.name for path in tmp_path.iterdir()} == always | asked


def test_images_are_no_video(tmp_path):
    source = Source(list(recording(3)), ("co2",), 3)
    predict_recording(Predictor(Known()), source, tmp_path, batch_size=2)
    assert not (tmp_path / "annotated.mp4").exists()


def test_what_could_not_be_read_is_listed(tmp_path, capsys):
    source = Source(recording(5, unreadable=(1, 3)), ("co2",), 5)
    assert predict_recording(Predictor(Known()), source, tmp_path, batch_size=2) == PARTLY_DONE
    printed = capsys.readouterr().out
    assert f"skipped: frame 1\nskipped: frame 3\n3 predicted into {tmp_path} (3 of CO2)" in printed
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("count", [0, 5])
def test_of_nothing_that_can_be_read_nothing_is_left(tmp_path, count):
    (tmp_path / "predictions.csv").write_text("earlier")
    source = Source(recording(count, unreadable=range(5)), ("co2",), rate=10.0)
    assert predict_recording(Predictor(Known()), source, tmp_path, batch_size=2) == NOTHING_DONE
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]
    assert (tmp_path / "predictions.csv").read_text() == "earlier"


def test_what_was_predicted_before_a_signal_is_written_in_order(tmp_path, capsys):
    def interrupted():
        for pair in recording(60):
            if pair.name == "frame_20":
                os.kill(os.getpid(), signal.SIGTERM)
            yield pair

    source = Source(interrupted(), ("co2",), rate=10.0)
    with StopRequest() as stop:
        assert predict_recording(Predictor(Known()), source, tmp_path, batch_size=2, stop=stop) == RUN_AGAIN
    names = [json.loads(line)["frame"] for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert 0 < len(names) < 60 and names == [f"frame_{i}" for i in range(len(names))]
    with av.open(str(tmp_path / "annotated.mp4")) as video:
        assert len(list(video.decode(video=0))) == len(names)
    assert "stopped early" in capsys.readouterr().out


def test_frames_of_a_gas_that_the_model_does_not_read_are_refused(tmp_path):
    reads_ch4 = dataclasses.replace(CARD, gases=("ch4",), segmented=("ch4",))
    with pytest.raises(UserError, match="reads ch4 alone, and there are only frames of co2"):
        predict_recording(Predictor(Known(reads_ch4)), Source(recording(1), ("co2",)), tmp_path, batch_size=1)


def test_two_gases_without_a_common_frame_are_warned_of(tmp_path, capsys):
    frame = half_bright(64, 80)
    pairs = [Pair("a", 0.0, {"co2": frame}), Pair("b", 1.0, {"ch4": frame})]
    assert predict_recording(Predictor(Known()), Source(pairs, ("co2", "ch4")), tmp_path, batch_size=1) == DONE
    printed = capsys.readouterr().out
    assert "(1 of CO2, 1 of CH4)" in printed and "WARNING: No frame of one gas goes with one of the other" in printed
