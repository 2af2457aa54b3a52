"""The page as a browser's script drives it: a real server, real uploads."""

import contextlib
import csv
import re
import signal
import socket
import types
import zipfile
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from configs.fume import get_config
from fume_jax.data.video import VideoWriter, read_video
from fume_jax.inference.jax_backends import create_card
from fume_jax.inference.page import create_page
from fume_jax.inference.predictor import Predictor, pretrained_examples
from fume_jax.schema import GASES
from tests.commands import assert_refused, run, run_fresh, start
from tests.data.test_images import blank_png

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def serving(*arguments, host="127.0.0.1"):
    """The server and its address, once it is ready."""
    process = start("fume_jax.app", "--port=0", *arguments)
    try:
        ready = process.stdout.readline()
        address = re.fullmatch(rf"Open (http://{re.escape(host)}:\d+)\n", ready)
        assert address, ready + process.stdout.read()
        yield process, address[1]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def server():
    with serving() as (_, address):
        yield address


@pytest.fixture(scope="module")
def predict(server, tmp_path_factory):
    """Asks the page for a prediction, files by gas."""
    client = Client(server, verbose=False, analytics_enabled=False, download_files=tmp_path_factory.mktemp("downloads"))

    def ask(**files):
        given = {gas: handle_file(str(files[gas])) if gas in files else None for gas in GASES}
        return client.predict(**given, api_name="/predict")

    return ask


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load()


@pytest.fixture(scope="module")
def example():
    return next(files for files in pretrained_examples().values() if len(files) == 2)


def assert_says(answer, expected, files):
    """The page's answer is what the predictor says of the same files."""
    *overlays, state, table, milliseconds = answer
    assert state["label"] == expected.label
    told = {entry["label"]: entry["confidence"] for entry in state["confidences"]}
    assert told == pytest.approx(expected.probabilities, abs=1e-4)
    assert table["headers"] == ["", "CO2", "CH4"]
    columns = dict(zip(GASES, list(zip(*table["data"], strict=True))[1:], strict=True))
    for gas, overlay in zip(GASES, overlays, strict=True):
        if gas not in files:
            assert overlay is None
            assert columns[gas] == (None,) * 4
            continue
        # The server compiles in another way than this process: a pixel on an edge may differ.
        plume, (area, share, direction, length) = expected.plumes[gas], columns[gas]
        assert area == pytest.approx(plume.area_pixels, rel=0.01, abs=2)
        assert share == pytest.approx(100 * plume.fraction, rel=0.01, abs=0.02)
        assert (direction is None) == (plume.direction_degrees is None)
        assert direction is None or abs((direction - plume.direction_degrees + 180) % 360 - 180) < 1
        assert length == pytest.approx(plume.length_pixels, rel=0.01, abs=2)
        frame, picture = cv2.imread(str(files[gas]), cv2.IMREAD_GRAYSCALE), cv2.imread(overlay)
        assert picture.shape == (*frame.shape, 3)
        background = expected.masks[gas] == 0
        coloured = np.ptp(picture.astype(int), axis=-1) > 20
        assert coloured[~background].mean() > 0.9 > 0.1 > coloured[background].mean()
    assert milliseconds > 0


@pytest.mark.parametrize("gases", [("co2", "ch4"), ("co2",), ("ch4",)])
def test_the_page_says_what_the_predictor_says_of_a_pair_and_of_one_gas(predict, predictor, example, gases):
    files = {gas: example[gas] for gas in gases}
    assert_says(predict(**files), predictor(**files), files)


@pytest.mark.parametrize("ending, dtype, channels", [("tiff", np.uint16, 3), ("png", np.uint16, 1)])
def test_deep_frames_of_any_size_are_read_as_everywhere(predict, predictor, example, tmp_path, ending, dtype, channels):
    grey = cv2.resize(cv2.imread(str(example["co2"]), cv2.IMREAD_GRAYSCALE), (500, 250)).astype(dtype)
    file = tmp_path / f"deep.{ending}"
    assert cv2.imwrite(str(file), np.repeat(grey[..., None] * 40 + 1000, channels, axis=-1))
    answer = predict(co2=file)
    assert cv2.imread(answer[0]).shape == (250, 500, 3)
    assert_says(answer, predictor(co2=file), {"co2": file})


def test_a_file_that_is_no_image_is_an_error_in_words_and_the_page_goes_on(predict, predictor, example, tmp_path):
    (tmp_path / "broken.png").write_text("this is no image")
    with pytest.raises(AppError, match="The CH4 frame: not an image, or a damaged one"):
        predict(co2=example["co2"], ch4=tmp_path / "broken.png")
    assert_says(predict(**example), predictor(**example), example)


@pytest.mark.parametrize("content, words", [(blank_png(7000, 6000), "7000x6000 is more than 40 megapixels")])
def test_a_small_file_of_too_many_pixels_is_refused(predict, tmp_path, content, words):
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(AppError, match=f"The CO2 frame: {words}"):
        predict(co2=tmp_path / "bomb.png")


def test_other_sites_cannot_use_the_page(server):
    call, host = f"{server}/gradio_api/call/predict", server.removeprefix("http://")
    for headers, code in [
        ({}, 200),
        ({"Origin": server}, 200),
        ({"Origin": "http://other.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "other.example"}, 403),
        ({"Host": "other.example", "Origin": "http://other.example"}, 403),
        ({"Host": host.replace("127.0.0.1", "localhost")}, 200),
    ]:
        assert httpx.post(call, json={"data": [None, None]}, headers=headers).status_code == code, headers
        assert httpx.get(server, headers=headers).status_code == code, headers


def test_without_a_frame_nothing_is_shown(predict):
    *overlays, state, table, milliseconds = predict()
    assert (overlays, state, milliseconds) == ([None, None], {}, None)
    assert [row[1:] for row in table["data"]] == [[None, None]] * 4


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_files_of_this_machine_that_nobody_uploaded_stay_private(server, example, meta):
    call = f"{server}/gradio_api/call/predict"
    event = httpx.post(call, json={"data": [{"path": str(example["co2"])} | meta, None]}).json()["event_id"]
    answer = httpx.get(f"{call}/{event}").text
    assert answer.startswith("event: error\n"), answer


@pytest.mark.parametrize(
    "name, shown",
    [
        ("fume", {"CO2 frame", "CH4 frame", "CO2: plume", "CH4: plume", "pH state", "Plume"}),
        ("early_fusion", {"CO2 frame", "CH4 frame", "CO2: plume", "pH state", "Plume"}),
        ("segmentation_only", {"CO2 frame", "CO2: plume", "Plume"}),
        ("classification_only", {"CO2 frame", "pH state"}),
    ],
)
def test_the_page_shows_what_the_model_has(name, shown):
    config = get_config()
    config.model.name = name
    page = create_page(types.SimpleNamespace(card=create_card(config, 1200, {"test/iou_gas": 0.625})))
    components = {c["id"]: c["props"] for c in page.config["components"]}

    def labels(node, visible=True):
        props = components.get(node["id"], {})
        visible = visible and props.get("visible", True)
        if visible and not node.get("children"):
            yield (props.get("label") or "").partition(",")[0].removesuffix(" orange").removesuffix(" green")
        for child in node.get("children") or []:
            yield from labels(child, visible)

    films = {"Recording", "Tables", "Annotated film", "Timeline", "Films", "Recordings"}
    films |= {f"{gas.upper()} film" for gas in GASES if f"{gas.upper()} frame" in shown}
    assert set(labels(page.config["layout"])) - {"", "Examples", "Milliseconds"} == shown | films
    (text,) = (props["value"] for props in components.values() if str(props.get("value")).startswith("# "))
    assert "trained for 1,200 steps on simulated frames alone" in text
    assert "gas IoU 0.62" in text


def test_one_upload_predicts_once():
    """The page shows an upload anew, as the model reads it: that is a change, but nothing that the user put in."""
    card = create_card(get_config(), 1, {})
    page = create_page(types.SimpleNamespace(card=card))
    frames = [c["id"] for c in page.config["components"] if c["props"].get("label") in ("CO2 frame", "CH4 frame")]
    (endpoint,) = (d for d in page.config["dependencies"] if d["api_name"] == "predict")
    assert sorted(map(tuple, endpoint["targets"])) == [(frame, "input") for frame in sorted(frames)]
    assert not [d for d in page.config["dependencies"] for _, event in d["targets"] if event == "change"]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A film of each gas, of frames to try the model on."""
    folder = tmp_path_factory.mktemp("films")
    for gas, file in next(files for files in pretrained_examples().values() if len(files) == 2).items():
        picture = cv2.cvtColor(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE), cv2.COLOR_GRAY2RGB)
        with VideoWriter(folder / f"bottle_{gas}.mp4", 10) as film:
            for i in range(4):
                film.write(picture, i / 10)
    return folder


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    return Client(server, verbose=False, analytics_enabled=False, download_files=tmp_path_factory.mktemp("films"))


def test_two_films_give_an_annotated_film_a_timeline_and_tables(client, films):
    given = [handle_file(str(films / f"bottle_{gas}.mp4")) for gas in GASES]
    video, timeline, summary, tables = client.predict(*given, api_name="/predict_film")
    video = video["video"] if isinstance(video, dict) else video
    assert len(list(read_video(video))) == 4
    assert cv2.imread(timeline).std() > 10
    assert {Path(path).name for path in tables} == {"predictions.csv", "recording.json", "recording.html"}
    with open(next(path for path in tables if path.endswith(".csv")), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["co2"], row["ch4"]) for row in rows] == [("read", "read")] * 4
    assert dict(summary["data"])["frames"] == "4"


def test_a_film_of_one_gas_is_enough_and_one_bad_film_is_one_message(client, films, tmp_path):
    *_, tables = client.predict(None, handle_file(str(films / "bottle_ch4.mp4")), api_name="/predict_film")
    assert len(tables) == 3
    (tmp_path / "broken.mp4").write_text("no film")
    with pytest.raises(AppError, match=r"^broken.mp4 is no video that can be read") as error:
        client.predict(handle_file(str(tmp_path / "broken.mp4")), None, api_name="/predict_film")
    assert str(error.value).count("broken.mp4") == 1
    with pytest.raises(AppError, match="Choose a film of at least one gas"):
        client.predict(None, None, api_name="/predict_film")


def test_films_that_are_named_for_their_gas_are_recordings(client, films):
    given = [handle_file(str(films / f"bottle_{gas}.mp4")) for gas in GASES]
    table, everything = client.predict(given, api_name="/predict_recordings")
    assert table["headers"][0] == "id" and [row[0] for row in table["data"]] == ["bottle"]
    assert dict(zip(table["headers"], table["data"][0], strict=True))["frames"] == "4"
    with zipfile.ZipFile(everything) as file:
        assert {"recordings.csv", "bottle/annotated.mp4", "bottle/predictions.csv"} <= set(file.namelist())


def test_films_of_this_machine_that_nobody_uploaded_stay_private(server, films):
    for name, data in [
        ("predict_film", [{"path": str(films / "bottle_co2.mp4")}, None]),
        ("predict_recordings", [[{"path": str(films / "bottle_co2.mp4")}]]),
    ]:
        call = f"{server}/gradio_api/call/{name}"
        answer = httpx.get(f"{call}/{httpx.post(call, json={'data': data}).json()['event_id']}").text
        assert answer.startswith("event: error\n"), answer


def test_without_gradio_the_extra_is_named(monkeypatch, tmp_path):
    (tmp_path / "gradio.py").write_text("raise ModuleNotFoundError(name='gradio')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # In an interpreter of its own: one that is forked has its path already.
    assert_refused(run_fresh("fume_jax.app", "--port=0"), "gradio", 'pip install -e ".[app]"')


def test_a_taken_port_is_refused_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_refused(run("fume_jax.app", f"--port={port}"), str(port), "Address already in use", "--port=0")


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    "host", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6"))]
)
def test_being_told_to_stop_ends_it_in_order(host):
    with serving(f"--host={host}", host=f"[{host}]" if ":" in host else host) as (process, address):
        assert httpx.get(address).status_code == 200
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate()
        assert process.returncode == 0, printed
        assert "Traceback" not in printed
