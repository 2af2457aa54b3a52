"""Tells requests to this machine from those that another site made a browser send (DNS rebinding, CSRF)."""

import ipaddress
import socket
from urllib.parse import urlsplit


class OwnNames:
    """The names of this machine: `localhost`, any IP address, its own name, also as `NAME.local`, and one to serve at.

    A browser sends `Host` and `Origin`, and a site cannot change them. Whoever controls another name could have it
    point here.
    """

    def __init__(self, host: str):
        """Takes the name or address to serve at."""
        own = socket.gethostname().lower()
        self._names = {"localhost", own, f"{own}.local", host.lower()}

    def admits(self, host: str, origin: str | None) -> bool:
        """Returns whether `Host` names this machine, and `Origin`, if any, is that host; both in lower case."""
        return self._is_own(host) and (origin is None or urlsplit(origin).netloc == host)

    def _is_own(self, host):
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
