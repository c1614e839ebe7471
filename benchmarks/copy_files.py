"""The floor under many small objects: reads and writes them, and speaks no HTTP.

    python copy_files.py INPUT_FOLDER OUTPUT_FOLDER

Each output is written under another name and renamed, so that it appears whole or not at all, as
the engine's outputs do.
"""

import os
import sys


def copy(source: str, target: str) -> None:
    """Copy every file of a folder, in the order of their names."""
    with os.scandir(source) as entries:
        names = sorted(entry.name for entry in entries)
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
    print('{"event": "started"}', flush=True)
    copy(*sys.argv[1:])
    print('{"event": "ended"}', flush=True)
