"""A page to try a trained model in the browser.

    python -m fume_jax.app --workdir=runs/demo

Everything stays on this machine. Ctrl-C ends it.
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

_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to serve at; 0.0.0.0 lets other machines in.")
_PORT = flags.DEFINE_integer(
    "port", 7860, "Port to serve at; 0 for one that is free.", lower_bound=0, upper_bound=65535
)
flags.adopt_module_key_flags(model_flags)


def main() -> None:
    """Serves the page until the process is told to stop."""
    model_flags.check()
    port = find_port(_HOST.value, _PORT.value)
    with tempfile.TemporaryDirectory() as folder:
        # Whatever is uploaded goes when the server does. Gradio looks it up while it is imported.
        os.environ["GRADIO_TEMP_DIR"] = folder
        # Gradio asks its own server whether it is up, which no proxy could answer.
        os.environ["no_proxy"] = ",".join([urllib.request.getproxies().get("no", ""), _HOST.value, "localhost"])
        with needs_extra("app", "The page"):
            from fume_jax.inference.page import THEME, create_page
        from fume_jax.runtime.preemption import StopRequest

        predictor = model_flags.load_predictor()
        predictor.warm_up()
        page = create_page(predictor)
        with StopRequest() as stop:
            page.launch(
                server_name=_HOST.value,
                server_port=port,
                theme=THEME,
                footer_links=["api"],
                share=False,
                run_history=False,
                quiet=True,
                prevent_thread_lock=True,
            )
            print(f"Open http://{_HOST.value}:{port}", flush=True)
            while not stop.requested:
                time.sleep(0.1)
            page.close(verbose=False)


def find_port(host: str, port: int) -> int:
    """The port, or if it is 0 one that is free.

    Raises:
      UserError: if it is taken, or this machine has no such address.
    """
    try:
        with socket.create_server((host, port)) as server:
            return server.getsockname()[1]
    except OSError as error:
        raise UserError(
            f"Cannot serve at {host}:{port}: {error.strerror}. Choose another --port; --port=0 takes one that is free."
        ) from error


if __name__ == "__main__":
    cli.run(main)
