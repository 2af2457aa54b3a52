"""Schemes of the addresses that a watch takes; flags read them without the libraries that open the addresses."""

from collections.abc import Iterable
from urllib.parse import urlsplit

# Network streams that FFmpeg opens.
CAMERA = ("rtsp", "rtsps", "rtp", "udp", "tcp", "http", "https")
# Those of servers; the others may listen at a port of this machine, `udp://:5000`.
SERVERS = ("rtsp", "rtsps", "http", "https")
WEBHOOK = ("http", "https")
# Ports of brokers.
MQTT_PORTS = {"mqtt": 1883, "mqtts": 8883}


def names_host(address: str, schemes: Iterable[str]) -> bool:
    """Returns whether an address has one of these schemes, names a host, and has no port that is none."""
    try:
        parts = urlsplit(address)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
