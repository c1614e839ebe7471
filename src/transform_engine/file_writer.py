"""Makes small files for `small_files`: `python -IS file_writer.py MARK`.

Takes batches of paths and contents from its standard input, a socket, and answers each there with
a byte for each file: 1 if it is there, 0 if nothing is left of it. A batch is its length in four
bytes and a marshalled list. Ends with the socket.

A program of its own, without the engine's modules, so that it starts quickly.
"""

import contextlib
import marshal
import os
import signal
import sys

_BUFFER_BYTES = 1 << 20
_FLAGS = os.O_WRONLY | os.O_CLOEXEC
# Without a name a file takes less time, and nothing is left of it if it stays unfinished.
_UNNAMED = getattr(os, "O_TMPFILE", 0)


def temporary_name(path: str, mark: str, count: int) -> str:
    """Return the name beside it that the so-manyth file has while it is made, if it has any."""
    return f"{path[: path.rindex('/') + 1]}{mark}w{count}"


def _make(path: str, temporary: str, content: bytes) -> bool:
    """Make a file, or leave nothing of it.

    :param temporary: a name beside it for those that must have one before they are whole.
    """
    named = False
    try:
        file = _open_unnamed(path)
        if file < 0:
            file = os.open(temporary, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
            named = True
        try:
            if os.write(file, content) == len(content):
                if not named:
                    try:
                        _link(file, path)
                        return True
                    except FileExistsError:
                        _link(file, temporary)  # To take the place of what is there.
                        named = True
                os.rename(temporary, path)
                named = False
                return True
        finally:
            os.close(file)
    except OSError:
        pass  # Who asked will try, and find out why.
    if named:
        with contextlib.suppress(OSError):  # Somebody was faster.
            os.unlink(temporary)
    return False


def _open_unnamed(path: str) -> int:
    if not _UNNAMED:
        return -1
    try:
        return os.open(path[: path.rindex("/") + 1], _FLAGS | _UNNAMED, 0o666)
    except OSError:
        return -1  # Not every file system has such files.


def _link(file: int, path: str) -> None:
    # Only if it is told a folder's descriptor, which it does not use, the file itself is linked.
    os.link(f"/proc/self/fd/{file}", path, src_dir_fd=file, follow_symlinks=True)


def main(mark: str) -> None:
    """Make files until there is nobody who asks for any."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # Who asks decides when it is over.
    if hasattr(os, "SCHED_BATCH"):
        # It need not interrupt the agent or the model server, only be done in time.
        with contextlib.suppress(OSError):  # A sandbox may not let it.
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    count = 0
    with open(0, "rb", buffering=_BUFFER_BYTES, closefd=False) as batches:
        while len(head := batches.read(4)) == 4:
            size = int.from_bytes(head, "big")
            batch = batches.read(size)
            if len(batch) < size:
                return
            made = bytearray()
            for path, content in marshal.loads(batch):
                count += 1
                made.append(_make(path, temporary_name(path, mark, count), content))
            os.write(0, made)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # Who asked is gone.
        main(sys.argv[1])
