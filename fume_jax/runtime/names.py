"""Names from outside, made safe for file systems, tables and output."""

import hashlib
import os
import re

# The most bytes of a file's name on usual file systems, less those of the ending of a file that is being written.
MAX_BYTES = 255 - len(".part")
# How a spreadsheet's formula may begin.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# What names of files on Windows may not hold, besides what they end in.
_FORBIDDEN = re.compile(r'[\\/<>:"|?*\x00-\x1f]')


def file_name(name: str, ending: str = "") -> str:
    """Returns `name` and `ending` as the name of a file.

    A name that is too long for file systems is cut, and ends in a digest of all of it, so that two names never become
    one. Raises ValueError if it would lie in another folder.
    """
    if "/" in name or os.sep in name or "\0" in name:
        raise ValueError(f"{printable(name)!r} is no file name")
    whole = os.fsencode(name + ending)
    if len(whole) <= MAX_BYTES:
        return name + ending
    tail = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}{ending}"
    return os.fsencode(name)[: MAX_BYTES - len(os.fsencode(tail))].decode(errors="ignore") + tail


def printable(text: str) -> str:
    """Escapes what is no valid Unicode, such as bytes of a file name that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def csv_text(text: str) -> str:
    """Returns the CSV cell of a text from outside: printable, and after an apostrophe if spreadsheets would run it."""
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def portable(name: str) -> str:
    """Returns a name as every file system and program takes it, for files that go to another machine.

    Characters that Windows forbids become `_`, and a digest of the name at the end keeps two such names apart.
    """
    taken = _FORBIDDEN.sub("_", printable(name))
    return taken if taken == name else f"{taken}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
