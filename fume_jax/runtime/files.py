"""Files that are complete whenever they are read."""

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Writes a text file atomically: however the process ends, the path holds the old text or the new one."""
    part = path.with_name(f"{path.name}.part")
    with open(part, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
