"""What a watch says of itself: metrics, health, JSON, and pictures when somebody looks."""

import json
import re
import socket
import types
import urllib.error
import urllib.request

import pytest

from fume_jax.inference.live.server import LiveServer
from fume_jax.inference.live.status import Status
from fume_jax.runtime.errors import UserError

RECORD = {"class": "Healthy", "Healthy": 0.5, "Transitional": 0.25, "Acidotic": 0.25}
RECORD |= {"event": False, "lag_seconds": 0.125, "milliseconds": 31.5}


def fake_stream(gas, lost=False):
    camera = types.SimpleNamespace(name="rtsp://ann@camera")
    counts = {"frames": 1_234_567, "dropped": 7, "damaged": 2, "reconnects": 1, "has_clock": False}
    return types.SimpleNamespace(gas=gas, camera=camera, is_lost=lambda now: lost, **counts)


@pytest.fixture
def status():
    box = types.SimpleNamespace(name='a "hook"', sent=10, dropped=3)
    return Status([fake_stream("co2"), fake_stream("ch4", lost=True)], [box], patience_seconds=5.0)


@pytest.fixture
def server(status):
    with LiveServer(status, "127.0.0.1", 0) as server:
        yield server


def get(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
            return answer.status, answer.read(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers["Content-Type"]


def samples(text):
    """Values by name and labels, of the text format; asserts that it is one."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels, value = re.fullmatch(r'(\w+)(\{\w+="(?:[^"\\]|\\.)*"\})? (\S+)', line).groups()
            assert f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}" in text
            assert (name, labels) not in found
            found[name, labels] = float(value)
    return found


def test_metrics_are_what_prometheus_reads(server, status):
    status.update(RECORD, {"co2": 0.25}, now=0.0)
    code, body, kind = get(f"{server.url}/metrics")
    assert code == 200 and kind.startswith("text/plain; version=0.0.4")
    found = samples(body.decode())
    assert found["fume_frames_read_total", '{gas="co2"}'] == 1_234_567
    assert found["fume_frames_dropped_total", '{gas="ch4"}'] == 7
    assert (found["fume_connected", '{gas="co2"}'], found["fume_connected", '{gas="ch4"}']) == (1, 0)
    assert found["fume_predicted_total", None] == 1
    assert found["fume_lag_seconds", None] == 0.125
    assert found["fume_gas_fraction", '{gas="co2"}'] == 0.25
    assert found["fume_class", '{class="Healthy"}'] == 1 and found["fume_class", '{class="Acidotic"}'] == 0
    assert found["fume_class_probability", '{class="Transitional"}'] == 0.25
    assert found["fume_messages_dropped_total", '{to="a \\"hook\\""}'] == 3
    parser = pytest.importorskip("prometheus_client.parser")
    assert {f.name for f in parser.text_string_to_metric_families(body.decode())} >= {"fume_class", "fume_connected"}


def test_before_the_first_prediction_there_are_metrics_too(server):
    found = samples(get(f"{server.url}/metrics")[1].decode())
    assert found["fume_predicted_total", None] == 0 and ("fume_lag_seconds", None) not in found


def test_health_is_whether_something_was_predicted_lately(server, status, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("fume_jax.inference.live.status.time", types.SimpleNamespace(monotonic=lambda: now[0]))
    status.update(RECORD, {}, now=100.0)
    assert get(f"{server.url}/healthz")[:2] == (200, b"ok\n")
    now[0] = 106.0
    assert get(f"{server.url}/healthz")[:2] == (503, b"nothing was predicted for 6 s\n")


def test_events_are_counted_when_they_begin(status):
    for event in (False, True, True, False, True):
        status.update(RECORD | {"event": event}, {}, 0.0)
    assert (status.events, status.predicted) == (2, 5)


def test_the_page_and_its_parts(server, status):
    assert not status.watched
    assert get(f"{server.url}/picture.jpg")[:2] == (204, b"")
    assert status.watched  # so that one is drawn
    status.show(b"JPEG")
    assert get(f"{server.url}/picture.jpg") == (200, b"JPEG", "image/jpeg")
    status.update(RECORD, {}, 0.0)
    code, body, _ = get(f"{server.url}/status.json")
    values = json.loads(body)
    assert code == 200 and values["record"] == RECORD and values["streams"]["ch4"]["connected"] is False
    code, body, kind = get(server.url)
    assert code == 200 and kind.startswith("text/html") and b"picture.jpg" in body
    assert get(f"{server.url}/nothing")[0] == 404
    assert b"http" not in body.replace(server.url.encode(), b"")  # nothing comes from elsewhere


def test_other_sites_are_refused(server):
    host = server.url.removeprefix("http://")
    for headers, code in [
        ({"Host": host}, 200),
        ({"Host": host.replace("127.0.0.1", "localhost")}, 200),
        ({"Host": "other.example"}, 403),
        ({"Host": host, "Origin": "http://other.example"}, 403),
        ({"Host": host, "Origin": server.url}, 200),
    ]:
        for path in ("/", "/metrics", "/picture.jpg"):
            assert get(server.url + path, **headers)[0] in (code, 204 if code == 200 else 403), (headers, path)


def test_a_host_that_is_none_is_named(status):
    with pytest.raises(UserError, match=r"--host=999\.1\.1\.1 is no address of this machine"):
        LiveServer(status, "999.1.1.1", 0)


def test_a_taken_port_is_refused_with_what_to_do(status):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="--port=0 takes a free one"):
        LiveServer(status, "127.0.0.1", taken.getsockname()[1])
