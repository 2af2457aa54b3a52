"""Settings of the C library's memory allocator."""

import ctypes
import sys


def keep_freed_memory() -> None:
    """Has this process keep the memory it frees, rather than return it to the system and ask for it again.

    XLA on a CPU allocates the scratch memory of a program anew at every call, hundreds of megabytes for a training
    step, which Linux clears page by page, a quarter of the step's time. Call it before threads start; needs glibc.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):  # see mallopt(3)
        library.mallopt(-8, 1)  # M_ARENA_MAX: one heap for all threads, since others may not grow beyond 64 MB
        library.mallopt(-4, 0)  # M_MMAP_MAX: no array has a mapping of its own, which would be returned with it
        library.mallopt(-1, -1)  # M_TRIM_THRESHOLD: the end of the heap is never returned either
