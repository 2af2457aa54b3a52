"""Memory that the C library keeps for what comes next."""

import ctypes
import sys

# Parameters of mallopt(3), and what they are set to.
_OPTIONS = {
    -8: 1,  # M_ARENA_MAX: one heap for all threads, since others may not grow beyond 64 MB
    -4: 0,  # M_MMAP_MAX: no array has a mapping of its own, which would be gone with it
    -1: -1,  # M_TRIM_THRESHOLD: nor is the end of the heap ever given back
}


def keep_freed_memory() -> None:
    """Has this process keep the memory it frees, rather than return it to the system and ask for it again.

    XLA on a CPU allocates the scratch memory of a program anew at every call, hundreds of megabytes for a training
    step, which Linux then clears page by page: a quarter of the step's time. Does nothing without glibc. To be called
    before any threads are started.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        for option, value in _OPTIONS.items():
            library.mallopt(option, value)
