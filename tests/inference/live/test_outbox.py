"""What is handed on arrives in order; what cannot is told and counted, and nobody waits for it."""

import contextlib
import http.server
import json
import socket
import struct
import threading
import time

import pytest

from fume_jax.inference.live.outbox import MqttPublisher, Outbox, Refused, webhook
from fume_jax.inference.live.retry import Backoff
from fume_jax.runtime.errors import UserError
from tests.inference.live.fakes import until


def outbox(send, depth=100):
    told = []
    return Outbox("box", send, tell=told.append, depth=depth, backoff=Backoff(0.01, 0.02)), told


def test_messages_arrive_once_and_in_order():
    got = []
    box, told = outbox(got.append)
    for i in range(50):
        box.put(i)
    box.close()
    assert got == list(range(50)) and (box.sent, box.dropped, told) == (50, 0, [])


def test_a_receiver_that_is_gone_is_told_once_and_gets_the_newest_when_it_is_back():
    got, there = [], threading.Event()

    def send(message):
        if not there.is_set():
            raise OSError("no route")
        got.append(message)

    box, told = outbox(send, depth=5)
    for i in range(20):
        box.put(i)
        time.sleep(0.005)
    there.set()
    until(lambda: got and got[-1] == 19)
    box.close()
    assert got == sorted(got) and len(got) + box.dropped == 20 and box.dropped >= 14
    assert told[0] == "box: not reached (no route); the newest 5 messages wait"
    assert told[1].startswith("box: reached again; 1") and told[1].endswith(" messages were dropped so far")
    assert len(told) == 2


def test_one_that_is_slow_is_waited_for_by_nobody():
    box, told = outbox(lambda _: time.sleep(0.05), depth=2)
    begin = time.monotonic()
    for i in range(100):
        box.put(i)
    assert time.monotonic() - begin < 0.05
    box.close()
    assert box.sent + box.dropped == 100 and box.dropped >= 96
    assert told == [f"box: {box.dropped} dropped so far, since more came than it took"]


def test_a_message_that_is_refused_does_not_stop_the_next():
    got = []

    def send(message):
        if message == 1:
            raise Refused("400 no")
        got.append(message)

    box, told = outbox(send)
    for i in range(3):
        box.put(i)
    box.close()
    assert got == [0, 2] and box.dropped == 1
    assert told[0] == "box: a message is refused (400 no)"


def test_closing_does_not_wait_for_one_that_hangs():
    forever = threading.Event()
    box, told = outbox(lambda _: forever.wait(20))
    for i in range(3):
        box.put(i)
    begin = time.monotonic()
    box.close(seconds=0.2)
    assert time.monotonic() - begin < 2
    assert told == ["box: 2 dropped so far, since more came than it took"]
    forever.set()


@pytest.fixture
def hook():
    """A web server: its address, the bodies that it got, and the codes that it answers with, in order."""
    got, codes = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            code = codes.pop(0) if codes else 200
            if code == 200:
                got.append((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(code)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/plumes", got, codes
        server.shutdown()


def test_a_webhook_gets_json_and_is_tried_again_after_an_error_of_its_own(hook):
    url, got, codes = hook
    codes[:] = [500, 200, 404, 200]
    box, told = outbox(webhook(url))
    for i in range(3):
        box.put(json.dumps({"frame": i}))
    until(lambda: len(got) == 2)
    box.close()
    assert got == [("/plumes", "application/json", {"frame": i}) for i in (0, 2)]
    assert box.dropped == 1 and "500" in told[0] and "reached again" in told[1] and "refused (404" in told[2]


class Broker:
    """The least of a broker of MQTT 3.1.1 (OASIS, 2014): accepts a client and collects what it publishes."""

    def __init__(self, code=0):
        self._server, self._code = socket.create_server(("127.0.0.1", 0)), code
        self.port, self.messages, self.user = self._server.getsockname()[1], [], None
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        self._server.close()

    def _serve(self):
        with contextlib.suppress(OSError, struct.error):
            while True:
                client, _ = self._server.accept()
                with client, client.makefile("rwb") as pipe, contextlib.suppress(OSError, struct.error, IndexError):
                    self._talk(pipe)

    def _talk(self, pipe):
        while True:
            kind, length, shift = pipe.read(1)[0] >> 4, 0, 0
            while True:
                byte = pipe.read(1)[0]
                length, shift = length | (byte & 127) << shift, shift + 7
                if byte < 128:
                    break
            body = pipe.read(length)
            if kind == 1:  # CONNECT
                texts = self._texts(body[10:])
                self.user = texts[1:]
                pipe.write(bytes([0x20, 2, 0, self._code]))
            elif kind == 3:  # PUBLISH of quality of service 0
                (size,) = struct.unpack(">H", body[:2])
                self.messages.append((body[2 : 2 + size].decode(), body[2 + size :].decode()))
            elif kind == 12:  # PINGREQ
                pipe.write(bytes([0xD0, 0]))
            elif kind == 14:  # DISCONNECT
                return
            pipe.flush()

    @staticmethod
    def _texts(data):
        texts = []
        while data:
            (size,) = struct.unpack(">H", data[:2])
            texts.append(data[2 : 2 + size].decode())
            data = data[2 + size :]
        return texts


def test_a_broker_gets_each_message_at_its_topic():
    pytest.importorskip("paho.mqtt", reason="MQTT NOT CHECKED: paho-mqtt is not installed (extra live)")
    with contextlib.closing(Broker()) as broker:
        with contextlib.closing(MqttPublisher(f"mqtt://ann:s%40c@127.0.0.1:{broker.port}/barn/plumes")) as publisher:
            box, told = outbox(publisher)
            for i in range(20):
                box.put(json.dumps({"frame": i}))
            until(lambda: len(broker.messages) == 20)
            box.close()
        assert broker.messages == [("barn/plumes", json.dumps({"frame": i})) for i in range(20)]
        assert broker.user == ["ann", "s@c"]
        assert box.dropped == 0 and all("not reached" in line or "reached again" in line for line in told)


def test_a_broker_that_refuses_the_user_says_so():
    pytest.importorskip("paho.mqtt", reason="MQTT NOT CHECKED: paho-mqtt is not installed (extra live)")
    with (
        contextlib.closing(Broker(code=5)) as broker,
        contextlib.closing(MqttPublisher(f"mqtt://127.0.0.1:{broker.port}/a")) as publisher,
    ):

        def why():
            with pytest.raises(OSError) as error:
                publisher("x")
            return str(error.value)

        until(lambda: "uthori" in why())


@pytest.mark.parametrize(
    "address",
    [
        "mqtt://host",
        "mqtt://host/",
        "http://host/topic",
        "mqtt:///topic",
        "mqtt://host:port/a",
        "mqtt://host:0/a",
        "mqtt://[host/a",
        "mqtt://u:p@h/a/#",
        "host/topic",
    ],
)
def test_an_address_that_names_no_broker_or_topic_is_refused(address):
    with pytest.raises(UserError, match="expected mqtt://HOST") as error:
        MqttPublisher(address)
    assert "u:p@" not in str(error.value)


@pytest.mark.parametrize("address", ["localhost:9", "http://", "http:///path", "ftp://host/a", "http://host:port/a"])
def test_an_address_of_no_web_server_is_refused(address):
    with pytest.raises(UserError, match="expected http://HOST"):
        webhook(address)
