"""Watches of real cameras over HTTP by a known model, and the command as a process."""

import dataclasses
import json
import re
import signal
import threading
import time
import types
import urllib.request

import cv2
import jax
import numpy as np
import psutil
import pytest
from flax import nnx

from configs import fume
from fume_jax.config import abstract_model
from fume_jax.inference.jax_backends import WeightsBackend, create_card
from fume_jax.inference.live.pairing import Pairing
from fume_jax.inference.live.watching import Options, json_lines, watch
from fume_jax.inference.predictor import Predictor
from fume_jax.learning import likeness
from fume_jax.runtime.byproducts import ByProducts
from fume_jax.runtime.errors import DONE, NOTHING_DONE, PARTLY_DONE, UserError
from tests.commands import assert_refused, run, start
from tests.inference.live.fakes import HttpCamera, Slow, columns, make_stream, noise, until
from tests.inference.test_predictor import CARD, Known
from tests.videos import encode, flat


class Watch:
    """A watch in a thread: its records, the lines that it tells, and its exit code once it has stopped."""

    def __init__(self, cameras, model=None, tolerance=0.1, timeout=0.5, **options):
        self.records, self.told, self.code = [], [], None
        self._stop = types.SimpleNamespace(requested=False)
        arrived = threading.Condition()
        streams = [
            make_stream(address, gas, self.told, arrived, timeout=timeout)[0] for gas, address in cameras.items()
        ]
        senders = {"test": lambda text: self.records.append(json.loads(text))} | options.pop("senders", {})
        options = Options(**({"output": "", "senders": senders, "address": None} | options))
        arguments = Predictor(model or Known()), streams, Pairing("arrival", tolerance), options, self._stop

        def work():
            self.code = watch(*arguments, self.told.append)

        self.streams, self._thread = streams, threading.Thread(target=work, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self._stop.requested = True
        self.join()

    def join(self):
        self._thread.join(20)
        assert not self._thread.is_alive()

    def wait(self, condition, seconds=10.0):
        """Waits for a record."""
        until(lambda: any(map(condition, self.records)), seconds)
        return next(filter(condition, self.records))


def is_pair(record):
    return (record["co2"], record["ch4"]) == ("read", "read")


def test_both_gases_are_predicted_as_they_come():
    with (
        HttpCamera(lambda i: columns(20)) as co2,
        HttpCamera(lambda i: columns(40)) as ch4,
        Watch({"co2": co2.url, "ch4": ch4.url}) as watched,
    ):
        record = watched.wait(is_pair)
        assert (record["co2_gas_fraction"], record["ch4_gas_fraction"]) == pytest.approx((0.25, 0.5), abs=0.03)
        assert record["class"] == "Acidotic" and record["co2_size"] == "80x64"
        assert abs(record["time"] - time.time()) < 5 and abs(record["apart_seconds"]) <= 0.1
        assert 0 <= record["lag_seconds"] < 1
    assert watched.code == DONE
    assert re.fullmatch(r"[\d,]+ predicted, [\d,]+ frames dropped for newer ones, 0 events", watched.told[-1])


def test_a_slow_model_is_behind_by_less_than_three_frames_and_memory_stays():
    """Gas moves by a column a frame, 50 a second, and the model takes 5 frames: it must see the newest one."""
    seen, model = [], Slow(0.1)
    with HttpCamera(lambda i: columns(i % 80)) as camera:

        def note(text):
            behind = camera.sent - round(json.loads(text)["co2_gas_fraction"] * 80)
            seen.append((behind + 40) % 80 - 40)

        with Watch({"co2": camera.url}, model, senders={"note": note}) as watched:
            until(lambda: len(seen) > 5)
            used = psutil.Process().memory_info().rss
            until(lambda: len(seen) > 25)
            grown = psutil.Process().memory_info().rss - used
            (stream,) = watched.streams
            assert stream.dropped > 2 * len(seen)
    # What is told is as old as the model is slow; without dropping it would be 100 frames late by now.
    assert np.median(seen) <= 5 + 3 and max(seen) < 20
    assert grown < 20e6
    assert max(record["lag_seconds"] for record in watched.records[3:]) < 0.1 + 3 / 50 + 0.1


def test_a_gas_that_stops_is_told_and_the_other_goes_on_alone():
    with (
        HttpCamera(lambda i: columns(20)) as co2,
        HttpCamera(lambda i: columns(40)) as ch4,
        Watch({"co2": co2.url, "ch4": ch4.url}) as watched,
    ):
        watched.wait(is_pair)
        ch4.pause()
        alone = watched.wait(lambda record: record["ch4"] == "lost")
        assert alone["co2"] == "read" and alone["ch4_gas_fraction"] is None and alone["ch4_size"] is None
        ch4.go_on()
        watched.wait(lambda record: is_pair(record) and record["ch4_reconnects"] == 1)
    lines = [line for line in watched.told if line.startswith("CH4")]
    assert ["sends" in lines[0], "is lost" in lines[1], "is back" in lines[2]] == [True] * 3 and len(lines) == 3


def test_a_camera_that_is_silent_but_connected_counts_as_lost():
    with (
        HttpCamera(lambda i: columns(20)) as co2,
        HttpCamera(lambda i: columns(40) if i < 20 else None) as ch4,
        Watch({"co2": co2.url, "ch4": ch4.url}) as watched,
    ):
        watched.wait(lambda record: record["ch4"] == "lost")
        until(lambda: any("CH4" in line and ("no data" in line or "no frame" in line) for line in watched.told))
        record = watched.wait(lambda record: record["ch4"] == "lost" and record["co2"] == "read")
    assert record["ch4_gas_fraction"] is None and record["co2_gas_fraction"] is not None


def test_a_frame_of_another_size_and_one_of_noise_are_told_and_predicted():
    trained = likeness.summarize_looks([likeness.measure_look(columns(i)) for i in range(10, 60)])
    card = dataclasses.replace(CARD, training_frames={"size": [64, 80], "co2": trained})

    def frame(i):
        return noise(i) if 20 <= i < 30 else columns(20, (96, 120)) if i >= 40 else columns(20)

    with HttpCamera(frame) as co2, Watch({"co2": co2.url}, Known(card)) as watched:
        record = watched.wait(lambda record: record["co2_size"] == "120x96")
        assert record["co2_gas_fraction"] == pytest.approx(0.25, abs=0.03)
        assert "sharpness" in watched.wait(lambda record: record["unlike_training"])["unlike_training"]
    assert len([line for line in watched.told if "unlike those of training: sharpness" in line]) == 1
    assert [line for line in watched.told if "frames are 120x96 now, 80x64 before" in line]


def test_a_receiver_that_gets_nothing_makes_the_work_partial(tmp_path):
    def send(_):
        raise OSError("no route")

    with Watch({"co2": encode(tmp_path / "co2.mp4", [flat(250)] * 3)}, senders={"gone": send}) as watched:
        watched.join()
    assert watched.code == PARTLY_DONE
    assert watched.told[-1].endswith("0 events") and any("it did not take them" in line for line in watched.told)


def test_a_file_of_lines_has_one_writer_who_goes_on_where_another_ended(tmp_path):
    path, by_products = str(tmp_path / "lines"), ByProducts()
    for number in range(2):
        with json_lines(path, by_products) as write:
            write({"number": number})
            second = json_lines(path, by_products)
            with pytest.raises(UserError, match=r"Another process is writing lines in .*another --output"), second:
                pass
    assert (tmp_path / "lines").read_text() == '{"number": 0}\n{"number": 1}\n'


def test_films_end_a_watch_and_pair_at_their_own_speed(tmp_path):
    paths = {gas: encode(tmp_path / f"{gas}.mp4", [flat(250)] * 12) for gas in ("co2", "ch4")}
    with Watch(paths) as watched:
        watched.join()
    assert watched.code == DONE and any(map(is_pair, watched.records))
    assert len([line for line in watched.told if "ends after 12 frames" in line]) == 2


def test_a_model_that_only_classifies_watches_too(tmp_path):
    path = encode(tmp_path / "co2.mp4", [flat(250)] * 5)
    card, films = dataclasses.replace(CARD, segmented=()), tmp_path / "films"
    with Watch({"co2": path}, Known(card), films=films, output=str(tmp_path / "lines")) as watched:
        watched.join()
    assert watched.code == DONE and len(list(films.glob("*.mp4"))) == 1
    assert "co2_gas_fraction" not in json.loads((tmp_path / "lines").read_text().splitlines()[0])


def test_a_film_without_a_frame_is_nothing_done(tmp_path):
    np.save(tmp_path / "film.npy", np.full((3, 48, 64), np.nan))
    with Watch({"co2": tmp_path / "film.npy"}) as watched:
        watched.join()
    assert watched.code == NOTHING_DONE


def test_lines_films_and_events_are_written_and_complete_when_it_stops(tmp_path):
    def frame(i):
        return columns(40 if 50 <= i < 100 else 0)

    options = {"films": tmp_path / "films", "events": tmp_path / "events", "output": str(tmp_path / "out" / "lines")}
    options |= {"event_gas": 0.1, "event_hold_seconds": 0.1, "event_seconds": 0.3, "address": ("127.0.0.1", 0)}
    with HttpCamera(frame) as camera, Watch({"co2": camera.url}, **options) as watched:
        until(lambda: watched.told)
        url = watched.told[0].removeprefix("Open ")
        until(lambda: urllib.request.urlopen(f"{url}/picture.jpg").status == 200)
        picture = urllib.request.urlopen(f"{url}/picture.jpg").read()
        assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape[1] == 480
        assert urllib.request.urlopen(f"{url}/healthz").read() == b"ok\n"
        until(lambda: any("event: complete" in line for line in watched.told))
    assert watched.code == DONE
    assert len(list((tmp_path / "films").glob("*.mp4"))) == 1
    (event,) = (tmp_path / "events").glob("*Z")
    assert {path.name for path in event.iterdir()} == {"annotated.mp4", "predictions.jsonl", "co2"}
    lines = [json.loads(line) for line in (tmp_path / "out" / "lines").read_text().splitlines()]
    assert lines == watched.records
    kept = [json.loads(line) for line in (event / "predictions.jsonl").read_text().splitlines()]
    assert not kept[0]["event"] and any(line["event"] for line in kept)
    assert not list(tmp_path.rglob("*.part"))


def test_a_folder_that_cannot_be_written_later_is_told_and_the_watch_goes_on(tmp_path):
    with HttpCamera(lambda i: columns(20)) as camera, Watch({"co2": camera.url}, output="/dev/full") as watched:
        until(lambda: len(watched.records) > 5)
    assert watched.code == PARTLY_DONE
    told = [
        line for line in watched.told if line.startswith("WARNING: a line of /dev/full could not be made: No space")
    ]
    assert len(told) == 3


def test_a_model_of_another_gas_is_refused():
    card = dataclasses.replace(CARD, gases=("co2",), segmented=("co2",))
    stream, _ = make_stream("tcp://127.0.0.1:9", "ch4")
    with pytest.raises(UserError, match="reads co2 alone"):
        watch(Predictor(Known(card)), [stream], Pairing("arrival", 0.1), Options(), None, print)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder of weights, all 0, of a model that compiles soon."""
    config = fume.get_config()
    config.model.backbone, config.data.height, config.data.width = "tiny", 64, 80
    graphdef, state = nnx.split(abstract_model(config))
    model = nnx.merge(graphdef, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state))
    path = tmp_path_factory.mktemp("tiny")
    WeightsBackend.write(path, model, create_card(config, 1, {}))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_predicts_and_stops_in_order(tiny, tmp_path, number):
    with HttpCamera(lambda i: columns(20), rate=10) as camera:
        outputs = [f"--output={tmp_path / 'lines'}", f"--films={tmp_path / 'films'}"]
        process = start("fume_jax.commands.watch", f"--co2={camera.url}", f"--workdir={tiny}", "--port=0", *outputs)
        try:
            address = re.fullmatch(r"Open (http://127.0.0.1:\d+)\n", process.stdout.readline())[1]
            until(lambda: b"predicted_total 0" not in urllib.request.urlopen(f"{address}/metrics").read(), 60)
            begin = time.monotonic()
            process.send_signal(number)
            printed, _ = process.communicate()
            assert process.returncode == 0 and "Traceback" not in printed, printed
            assert time.monotonic() - begin < 10
        finally:
            process.kill()
    assert json.loads((tmp_path / "lines").read_text().splitlines()[0])["co2"] == "read"
    assert len(list((tmp_path / "films").glob("*.mp4"))) == 1 and not list((tmp_path / "films").glob("*.part"))


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["at least one gas", "--co2=ADDRESS"]),
        (["--co2=gopher://a"], ["gopher://a; expected a path on this machine, or an address that begins with rtsp://"]),
        (["--co2=rtsp://"], ["rtsp:// names no server; expected rtsp://HOST"]),
        (["--co2=rtsp://a", "--range=recording"], ["--range=recording needs all of a recording"]),
        (["--co2=rtsp://a", "--mqtt=mqtt://host"], ["expected mqtt://HOST[:PORT]/TOPIC"]),
        (["--co2=rtsp://a", "--webhook=localhost:9"], ["expected http://HOST[:PORT]/PATH"]),
        (["--co2=rtsp://a", "--tolerance=a"], ["--tolerance=a: expected a number"]),
    ],
)
def test_mistakes_are_said_in_plain_words(arguments, words):
    assert_refused(run("fume_jax.commands.watch", *arguments), *words)
