"""The floor under many small objects: reads and writes them, and speaks no HTTP.

    python copy_files.py INPUT_FOLDER OUTPUT_FOLDER

Each output is written under another name and renamed, so that it appears whole or not at all, as
the engine's outputs do.
"""

import os
import sys


def list_files(source: str) -> list[str]:
    """Return the names of a folder's files, in order."""
    with os.scandir(source) as entries:
        return sorted(entry.name for entry in entries)


def copy(names: list[str], source: str, target: str) -> None:
    """Copy files from one folder to the other."""
    for name in names:
        reading = os.open(f"{source}/{name}", os.O_RDONLY)
        pieces = []
        while piece := os.read(reading, 1 << 20):
            pieces.append(piece)
        os.close(reading)
        writing = os.open(f"{target}/.{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        for piece in pieces:
            os.write(writing, piece)
        os.close(writing)
        os.rename(f"{target}/.{name}", f"{target}/{name}.out")


if __name__ == "__main__":
    names = list_files(sys.argv[1])  # Which the engine, too, does before it says that it starts.
    print('{"event": "started"}', flush=True)
    copy(names, *sys.argv[1:])
    print('{"event": "ended"}', flush=True)
