"""Hands messages on in a thread of its own: to a broker, to a web server, or to what draws pictures."""

import collections
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from fume_jax.inference.live.cameras import without_password
from fume_jax.inference.live.retry import Backoff
from fume_jax.inference.live.schemes import MQTT_PORTS, WEBHOOK, names_host
from fume_jax.runtime.byproducts import reason
from fume_jax.runtime.errors import UserError, needs_extra

# Seconds between two lines about messages that were dropped.
TOLD_SECONDS = 60.0
# Seconds that a server may take for a message.
_SEND_SECONDS = 10.0


class Refused(Exception):
    """Signals that a message will never be taken; the next one may be."""


class Outbox:
    """Hands messages on in order; what cannot be handed on is tried again until newer messages take its place.

    Attributes:
      sent, dropped: numbers of messages.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[object], object],
        *,
        tell: Callable[[str], object],
        depth: int = 100,
        backoff: Backoff | None = None,
    ):
        """Starts the thread.

        Args:
          name: of the receiver, for lines and metrics.
          send: hands one message on; any error is told, and the message tried again, unless it is `Refused`.
          tell: prints a line.
          depth: the most messages that wait; the oldest go first.
          backoff: waits between tries.
        """
        self.name, self.sent, self.dropped = name, 0, 0
        self._send, self._tell, self._depth, self._backoff = send, tell, depth, backoff or Backoff(1.0)
        self._waiting, self._changed, self._closing = collections.deque(), threading.Condition(), threading.Event()
        self._failed, self._told, self._told_at = False, 0, time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, message: object) -> None:
        """Adds a message; never waits."""
        with self._changed:
            self._waiting.append(message)
            if len(self._waiting) > self._depth:
                self._waiting.popleft()
                self.dropped += 1
            self._changed.notify()
        if time.monotonic() - self._told_at > TOLD_SECONDS:
            self._tell_dropped()

    def close(self, seconds: float = 3.0) -> None:
        """Hands on what still waits, for `seconds` at most; tells what was dropped."""
        self._closing.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(seconds)
        with self._changed:
            self.dropped += len(self._waiting)
            self._waiting.clear()
        self._tell_dropped()

    def _run(self):
        while (message := self._next()) is not None:
            try:
                self._send(message)
            except Refused as error:
                self.dropped += 1
                self._fail(f"a message is refused ({error})")
            except Exception as error:  # of any type: what a library raises must not end the thread
                self._fail(f"not reached ({reason(error)}); the newest {self._depth:,} messages wait")
                with self._changed:
                    if len(self._waiting) < self._depth:
                        self._waiting.appendleft(message)
                    else:
                        self.dropped += 1
                self._closing.wait(self._backoff.next())
                if self._closing.is_set():
                    return
            else:
                self.sent += 1
                self._backoff.reset()
                if self._failed:
                    self._failed = False
                    self._tell(f"{self.name}: reached again; {self.dropped:,} messages were dropped so far")
                    self._told = self.dropped

    def _next(self):
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            return self._waiting.popleft() if self._waiting else None

    def _fail(self, what):
        if not self._failed:
            self._failed = True
            self._tell(f"{self.name}: {what}")

    def _tell_dropped(self):
        self._told_at = time.monotonic()
        if self.dropped > self._told:
            self._told = self.dropped
            why = "it did not take them" if self._failed else "more came than it took"
            self._tell(f"{self.name}: {self.dropped:,} dropped so far, since {why}")


def webhook(url: str) -> Callable[[str], None]:
    """Returns a function that posts a JSON text to a web server; it raises `Refused` if that answers 4xx.

    Raises UserError if the address names no web server.
    """
    if not names_host(url, WEBHOOK):
        raise UserError(f"--webhook={without_password(url)}: expected http://HOST[:PORT]/PATH, or https://.")

    def post(message):
        data, headers = message.encode(), {"Content-Type": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=_SEND_SECONDS):
                pass
        except urllib.error.HTTPError as error:
            if 400 <= error.code < 500:
                raise Refused(f"{error.code} {error.reason}") from error
            raise

    return post


class MqttPublisher:
    """Publishes texts at a broker, `mqtt://[USER:PASSWORD@]HOST[:PORT]/TOPIC` or `mqtts://...`; extra `live`.

    They have quality of service 0: the next one is newer anyway. The connection is made, and made again, in a thread of
    the library.
    """

    def __init__(self, address: str):
        """Begins to connect; UserError if the address names no broker or topic, or the library is missing."""
        self._topic = unquote(address.partition("://")[2].partition("/")[2])
        is_topic = self._topic and not set(self._topic) & set("+#")  # which stand for many topics
        if not names_host(address, MQTT_PORTS) or not is_topic:
            raise UserError(f"--mqtt={without_password(address)}: expected mqtt://HOST[:PORT]/TOPIC, or mqtts://.")
        parts = urlsplit(address)
        with needs_extra("live", "MQTT"):
            from paho.mqtt import client as mqtt
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._why = "no connection"
        self._client.on_connect = self._answered
        if parts.username:
            self._client.username_pw_set(unquote(parts.username), parts.password and unquote(parts.password))
        if parts.scheme == "mqtts":
            self._client.tls_set()
        self._client.reconnect_delay_set(1, 30)
        self._client.connect_async(parts.hostname, parts.port or MQTT_PORTS[parts.scheme], keepalive=15)
        self._client.loop_start()

    def __call__(self, message: str) -> None:
        """Publishes a message; OSError if it did not leave."""
        if not self._client.is_connected():
            raise OSError(self._why)
        published = self._client.publish(self._topic, message)
        published.wait_for_publish(_SEND_SECONDS)
        if not published.is_published():
            raise OSError(f"nothing leaves for {_SEND_SECONDS:g} s")

    def close(self) -> None:
        """Takes leave of the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def _answered(self, client, userdata, flags, code, properties):
        self._why = "no connection" if code == 0 else str(code)
