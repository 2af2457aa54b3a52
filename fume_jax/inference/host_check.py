"""Refuses requests that another site made a browser send to the page (DNS rebinding, CSRF)."""

from collections.abc import Awaitable, Callable

from starlette.responses import PlainTextResponse

from fume_jax.inference.own_names import OwnNames

REFUSED = "This page answers only to its own address. Open it by the address that fume app prints.\n"


class HostCheck:
    """ASGI middleware: lets requests pass whose `Host` names this machine and whose `Origin`, if any, is that host."""

    def __init__(self, app: Callable[..., Awaitable], host: str):
        """Takes the application behind it, and the host that it serves at; see `OwnNames`."""
        self._app, self._names = app, OwnNames(host)

    async def __call__(self, scope, receive, send) -> None:
        """Answers 403 to what it refuses, or passes it on."""
        headers = {name: value.decode("latin-1").lower() for name, value in scope.get("headers", ())}
        is_own = self._names.admits(headers.get(b"host", ""), headers.get(b"origin"))
        app = self._app
        if scope["type"] in ("http", "websocket") and not is_own:
            app = PlainTextResponse(REFUSED, status_code=403)
        await app(scope, receive, send)
