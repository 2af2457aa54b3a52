"""Predicts beside cameras, as their frames come: `fume watch --co2=rtsp://HOST/PATH --ch4=/dev/video1`.

A camera is an address (rtsp, rtp, udp, tcp, http and https), a number or path of a video device, or a film; one gas may
be left out. The newest frame of each is predicted, and frames that came while the model was at work are dropped. A
camera that is lost is tried again until it is back. Ctrl-C and SIGTERM end the command in order.

Each prediction is a line of JSON on standard output, or in --output; messages go to standard error. A page with the
annotated frames, metrics for Prometheus and `/healthz` are served on this machine.
"""

import contextlib
import sys
from pathlib import Path

from absl import flags

from fume_jax.inference import flags as model_flags
from fume_jax.inference.live import schemes
from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

_CAMERA = "address, such as rtsp://HOST/PATH, number or path of a video device, or a film."
_CO2 = cli.define_address("co2", schemes.CAMERA, f"CO2 camera: {_CAMERA}")
_CH4 = cli.define_address("ch4", schemes.CAMERA, f"CH4 camera: {_CAMERA}")
_FOLLOW = flags.DEFINE_bool(
    "follow", False, "Films are still being written: what is there is read at once, and then what comes."
)
_PAIR = flags.DEFINE_enum(
    "pair",
    "arrival",
    ["arrival", "clock"],
    "Frames of the two gases pair by when they arrive, or by their clocks.",
)
_TOLERANCE = flags.DEFINE_float("tolerance", 0.1, "The most seconds between the two frames of a pair.", lower_bound=0)
_TIMEOUT = flags.DEFINE_float("timeout", 10.0, "Seconds without a frame after which a camera is lost.", lower_bound=0.1)
_RANGE = flags.DEFINE_string(
    "range",
    "frame",
    "How frames deeper than 8 bits become grey: by the range of each frame (frame), or by LOW,HIGH in their unit.",
)
_OUTPUT = flags.DEFINE_string("output", "-", "File to which predictions are added, - for standard output, or empty.")
_MQTT = cli.define_address(
    "mqtt",
    tuple(schemes.MQTT_PORTS),
    "Broker that gets predictions: mqtt://[USER:PASSWORD@]HOST[:PORT]/TOPIC, or mqtts://.",
)
_WEBHOOK = cli.define_address("webhook", schemes.WEBHOOK, "Address to which predictions are posted as JSON.")
for _address in (_CO2, _CH4, _MQTT, _WEBHOOK):
    flags.declare_key_flag(_address.name)  # listed by --help though they are defined by another module
_FILMS = flags.DEFINE_string("films", None, "Folder for annotated films, a piece after the other.")
_FILM_MINUTES = flags.DEFINE_float("film_minutes", 10.0, "Minutes of a piece.", lower_bound=0.01)
_FILM_KEEP = flags.DEFINE_integer("film_keep", 12, "Number of pieces to keep; older ones are deleted.", lower_bound=1)
_EVENTS = flags.DEFINE_string("events", None, "Folder for what happens around events, a folder each.")
_EVENT_GAS = flags.DEFINE_float(
    "event_gas", 0.01, "An event is more gas than this share of the frame.", lower_bound=0, upper_bound=1
)
_EVENT_HOLD = flags.DEFINE_float("event_hold", 2.0, "Seconds that gas has to be there, or gone.", lower_bound=0)
_EVENT_SECONDS = flags.DEFINE_float("event_seconds", 10.0, "Seconds to keep before and after an event.", lower_bound=0)
_SERVE = flags.DEFINE_bool("serve", True, "Serve the page, metrics and health.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address of the page; 0.0.0.0 or :: lets other machines open it.")
_PORT = flags.DEFINE_integer("port", 8760, "Port of the page; 0 chooses a free one.", lower_bound=0, upper_bound=65535)
_TTA = flags.DEFINE_bool("tta", False, "Average predictions over each frame and its mirror image.")
flags.adopt_module_key_flags(model_flags)


def main() -> int:
    """Watches as the flags say until a signal stops the process; returns the exit code."""
    from fume_jax.data.scale import RECORDING, parse_range
    from fume_jax.inference.live.outbox import MqttPublisher, webhook
    from fume_jax.inference.live.pairing import Pairing
    from fume_jax.inference.live.streams import open_streams
    from fume_jax.inference.live.watching import Options, watch
    from fume_jax.runtime.preemption import StopRequest

    model_flags.check()
    limits = parse_range(_RANGE.value)
    if limits == RECORDING:
        raise UserError("--range=recording needs all of a recording; expected frame, or LOW,HIGH.")
    pairing = Pairing(_PAIR.value, _TOLERANCE.value)
    given = {gas: flag.value for gas, flag in (("co2", _CO2), ("ch4", _CH4)) if flag.value}
    # Before the model is loaded, so that what is wrong is said at once.
    streams = open_streams(given, follow=_FOLLOW.value, timeout=_TIMEOUT.value, depth=pairing.depth, tell=_tell)
    senders = {"webhook": webhook(_WEBHOOK.value)} if _WEBHOOK.value else {}
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        if _MQTT.value:
            senders["mqtt"] = stack.enter_context(contextlib.closing(MqttPublisher(_MQTT.value)))
        options = Options(
            output=_OUTPUT.value,
            senders=senders,
            films=Path(_FILMS.value) if _FILMS.value else None,
            film_seconds=60 * _FILM_MINUTES.value,
            film_keep=_FILM_KEEP.value,
            events=Path(_EVENTS.value) if _EVENTS.value else None,
            event_gas=_EVENT_GAS.value,
            event_hold_seconds=_EVENT_HOLD.value,
            event_seconds=_EVENT_SECONDS.value,
            address=(_HOST.value, _PORT.value) if _SERVE.value else None,
            limits={} if isinstance(limits, str) else dict.fromkeys(given, limits),
        )
        predictor = model_flags.load_predictor(tta=_TTA.value)
        return watch(predictor, streams, pairing, options, stop, _tell)


def _tell(text):
    sys.stderr.write(f"{text}\n")  # in one piece, since several threads tell
    sys.stderr.flush()


if __name__ == "__main__":
    cli.run(main)
