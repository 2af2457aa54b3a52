"""Requests that name another site are refused, whatever they ask for."""

import asyncio
import socket

import pytest

from fume_jax.inference.host_check import HostCheck


def status(headers, kind="http", host="127.0.0.1"):
    """200 if the request passes, or the status that it is answered with."""
    sent = []

    async def app(scope, receive, send):
        sent.append({"status": 200})

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "headers": [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]}
    if kind == "websocket":
        scope["extensions"] = {"websocket.http.response": {}}
    asyncio.run(HostCheck(app, host)(scope, None, send))
    return sent[0]["status"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "host, passes",
    [
        ("127.0.0.1:7860", True),
        ("LOCALHOST:7860", True),
        ("localhost", True),
        ("[::1]:7860", True),
        ("192.168.1.7:7860", True),
        (socket.gethostname(), True),
        (f"{socket.gethostname()}.local:7860", True),
        ("other.example:7860", False),
        ("localhost.other.example", False),
        ("127.0.0.1.other.example", False),
        (f"{socket.gethostname()}.other.example", False),
        ("other.example@127.0.0.1.example", False),
        ("[::1", False),
        ("", False),
        ("\xe9", False),
    ],
)
def test_only_names_of_this_machine_are_answered(host, passes, kind):
    assert status({"host": host}, kind) == (200 if passes else 403)
    scheme = "http"
    assert status({"host": host, "origin": f"{scheme}://{host}"}, kind) == (200 if passes else 403)
    assert status({"host": host, "origin": "http://other.example"}, kind) == 403


def test_the_host_that_is_served_at_is_answered():
    assert status({"host": "plumes.lab.example:80"}, host="plumes.lab.example") == 200
    assert status({"host": "plumes.lab.example:80"}) == 403
    assert status({}, "lifespan") == 200


@pytest.mark.parametrize("origin", ["null", "http://localhost:3000", "http://127.0.0.1", "", "file://"])
def test_another_origin_on_this_machine_is_another_site(origin):
    assert status({"host": "127.0.0.1:7860", "origin": origin}) == 403
