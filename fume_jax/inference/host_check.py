"""Refuses requests that another site made a browser send to the page (DNS rebinding, CSRF)."""

import ipaddress
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse

REFUSED = "This page answers only to its own address. Open it by the address that fume app prints.\n"


class HostCheck:
    """ASGI middleware: lets requests pass whose `Host` names this machine and whose `Origin`, if any, is that host.

    A browser sends both, and a site cannot change them. This machine goes by `localhost`, any IP address, its own name
    (also as `NAME.local`) and the `host` that it serves at; whoever controls another name could have it point here.
    """

    def __init__(self, app: Callable[..., Awaitable], host: str):
        self._app = app
        own = socket.gethostname().lower()
        self._names = {"localhost", own, f"{own}.local", host.lower()}

    async def __call__(self, scope, receive, send) -> None:
        """Answers 403 to what it refuses, or passes it on."""
        headers = {name: value.decode("latin-1").lower() for name, value in scope.get("headers", ())}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        app = self._app
        is_own = self._is_own(host) and (origin is None or urlsplit(origin).netloc == host)
        if scope["type"] in ("http", "websocket") and not is_own:
            app = PlainTextResponse(REFUSED, status_code=403)
        await app(scope, receive, send)

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
