"""Worker processes that share the fate of the process that started them."""

import multiprocessing
import os
import signal
import threading

from fume_jax.runtime.preemption import StopRequest


def follow_parent() -> None:
    """Ties a worker process to its parent: it ignores signals to the whole job, and ends when the parent has ended.

    The parent answers a signal, and may need results of its workers until then. However it ends, even killed, no worker
    stays. Call it in the worker, which `multiprocessing` started.
    """
    for number in StopRequest.SIGNALS:
        signal.signal(number, signal.SIG_IGN)

    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
