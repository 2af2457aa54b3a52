"""Serves a watch to the browser, to Prometheus and to health checks."""

import functools
import http.server
import json
import socket
import threading

from fume_jax.inference.live.status import Status
from fume_jax.inference.own_names import OwnNames
from fume_jax.runtime.errors import UserError

REFUSED = "This page answers only to its own address.\n"
_TEXT = "text/plain; charset=utf-8"
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>fume watch</title>
<meta name="viewport" content="width=device-width">
<style>
body { font: 15px/1.4 system-ui, sans-serif; max-width: 1100px; margin: 1.5em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.3em } img { width: 100%; background: #181818; min-height: 12em; display: block }
table { border-collapse: collapse; margin: 1em 2em 0 0; display: inline-table; vertical-align: top }
td, th { padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums }
td:first-child, th:first-child { text-align: left } .bad { color: #d7302f; font-weight: bold }
</style>
<h1>Gas plumes, live</h1><p id="problem" class="bad" role="alert"></p>
<img id="picture" alt="The newest frames with the plumes found in them"><table id="prediction"></table>
<table id="streams"></table>
<p><a href="metrics">metrics</a> <a href="healthz">health</a> <a href="status.json">JSON</a></p>
<script>
const FIELDS = ["class", "abstain", "unlike_training", "co2", "ch4", "co2_gas_fraction", "ch4_gas_fraction", "event",
  "lag_seconds", "apart_seconds", "milliseconds"];
const picture = document.getElementById("picture"), wait = ms => new Promise(done => setTimeout(done, ms));
function fill(id, rows) {
  const table = document.getElementById(id);
  table.replaceChildren(...rows.map(cells => {
    const row = document.createElement("tr");
    row.append(...cells.map(text => Object.assign(document.createElement("td"), {textContent: text})));
    return row;
  }));
}
async function pictures() {
  for (;;) {
    const answer = await fetch("picture.jpg").catch(() => null);
    if (answer && answer.status === 200) {
      const old = picture.src;
      picture.src = URL.createObjectURL(await answer.blob());
      await picture.decode().catch(() => null);
      if (old) URL.revokeObjectURL(old);
    }
    await wait(answer ? 80 : 1000);
  }
}
async function numbers() {
  for (;;) {
    const status = await fetch("status.json").then(answer => answer.json()).catch(() => null);
    document.getElementById("problem").textContent = status ? status.problem || "" : "the watch does not answer";
    if (status) {
      const shown = FIELDS.filter(name => ![undefined, null, ""].includes(status.record[name]));
      fill("prediction", shown.map(name => [name.replaceAll("_", " "), String(status.record[name])]));
      const streams = Object.entries(status.streams);
      const names = ["camera", "connected", "frames", "dropped", "damaged", "reconnects"];
      fill("streams", [["", ...streams.map(([gas]) => gas.toUpperCase())],
        ...names.map(name => [name, ...streams.map(([, stream]) => String(stream[name]))]),
        ["predicted", String(status.predicted)], ["events", String(status.events)]]);
    }
    await wait(500);
  }
}
pictures(); numbers();
</script></html>
"""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def __init__(self, status, names, *arguments):
        self._status, self._names = status, names
        super().__init__(*arguments)

    def do_GET(self):
        host, origin = (self.headers.get(name) for name in ("Host", "Origin"))
        if not self._names.admits((host or "").lower(), origin and origin.lower()):
            self._answer(403, REFUSED.encode(), _TEXT)
            return
        path = self.path.partition("?")[0]
        if path == "/":
            self._answer(200, _PAGE.encode(), "text/html; charset=utf-8")
        elif path == "/metrics":
            self._answer(200, self._status.metrics().encode(), "text/plain; version=0.0.4; charset=utf-8")
        elif path == "/healthz":
            problem = self._status.problem()
            self._answer(503 if problem else 200, f"{problem or 'ok'}\n".encode(), _TEXT)
        elif path == "/status.json":
            self._answer(200, json.dumps(self._status.to_json()).encode(), "application/json")
        elif path == "/picture.jpg":
            picture = self._status.picture()
            self._answer(200 if picture else 204, picture or b"", "image/jpeg")
        else:
            self._answer(404, b"There is no such page.\n", _TEXT)

    do_HEAD = do_GET

    def log_message(self, *_):
        """Logs nothing."""

    def _answer(self, code, body, kind):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        if code != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Says nothing of visitors that break off."""


class LiveServer:
    """A server of `/`, `/metrics`, `/healthz`, `/status.json` and `/picture.jpg`; a context manager.

    It answers to names of this machine alone, see `OwnNames`.
    """

    def __init__(self, status: Status, host: str, port: int):
        """Takes the port, 0 for a free one; UserError if it is taken, or this machine has no such address."""
        handler = functools.partial(_Handler, status, OwnNames(host))
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            kind = type("_Family", (_Server,), {"address_family": family})
            self._server = kind(address, handler)
        except socket.gaierror as error:
            raise UserError(f"--host={host} is no address of this machine ({error.strerror}).") from error
        except OSError as error:
            remedy = "Choose another --port; --port=0 takes a free one."
            raise UserError(f"Cannot serve at {host}:{port}: {error.strerror}. {remedy}") from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="server", daemon=True)

    def __enter__(self) -> "LiveServer":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()
