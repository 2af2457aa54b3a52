"""Serves a web page on which to try a model: `fume app --workdir=runs/demo`. Ctrl-C ends it.

Everything stays on this machine.
"""

import os
import socket
import tempfile
import time
import urllib.request

from absl import flags

from fume_jax.inference import flags as model_flags
from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError, needs_extra

_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address of the page; 0.0.0.0 or :: lets other machines open it.")
_PORT = flags.DEFINE_integer("port", 7860, "Port of the page; 0 chooses a free one.", lower_bound=0, upper_bound=65535)
flags.adopt_module_key_flags(model_flags)


def main() -> None:
    """Serves the page until a signal stops the process."""
    model_flags.check()
    port = find_port(_HOST.value, _PORT.value)
    address = f"[{_HOST.value}]" if ":" in _HOST.value else _HOST.value
    with tempfile.TemporaryDirectory() as folder:
        # Uploads are deleted when the server ends. Gradio reads this variable while it is imported.
        os.environ["GRADIO_TEMP_DIR"] = folder
        # Gradio sends requests to its own server, which no proxy could answer.
        os.environ["no_proxy"] = ",".join([urllib.request.getproxies().get("no", ""), _HOST.value, "localhost"])
        with needs_extra("app", "The page"):
            from fume_jax.inference.page import THEME, create_page, launch_options
        from fume_jax.runtime.preemption import StopRequest

        predictor = model_flags.load_predictor()
        predictor.warm_up()
        page = create_page(predictor)
        with StopRequest() as stop:
            page.launch(server_name=address, server_port=port, theme=THEME, **launch_options(address))
            print(f"Open http://{address}:{port}", flush=True)
            while not stop.requested:
                time.sleep(0.1)
            page.close(verbose=False)


def find_port(host: str, port: int) -> int:
    """Returns the port, or a free one for 0; UserError if it is taken or this machine has no such address."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.create_server(address, family=family) as server:
            return server.getsockname()[1]
    except OSError as error:
        remedy = "Choose another --port; --port=0 takes a free one."
        raise UserError(f"Cannot serve at {host}:{port}: {error.strerror}. {remedy}") from error


if __name__ == "__main__":
    cli.run(main)
