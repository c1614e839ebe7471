"""Runs one model server and never leaves it behind; a program of its own, standard library only.

    python -IS keeper.py STOP_TIMEOUT_S [FINISH...] -- COMMAND...

FINISH is a command that ends what the group's end does not, such as a container whose engine runs
it elsewhere; it is run when the server has ended or has had its time.

The server is the leader of its own process group. When the keeper's standard input closes (the
agent asks for it, or has died in whatever way), the group gets SIGTERM, time, and SIGKILL. What
left the group is found as the keeper's own child, since the keeper adopts orphans. Should the
keeper itself be killed, the kernel kills the server. Exits with the server's exit code.
"""

import os
import select
import signal
import sys
import time

_FINISH_S, _LAST_S = 60, 5
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_NO_SUCH_COMMAND = 127


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _run(command: list[str], keeper: int) -> None:
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)  # The keeper died before the line above.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
        os._exit(_NO_SUCH_COMMAND)


def _signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _reap() -> dict[int, int]:
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def _children() -> list[int]:
    me, found = os.getpid(), []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue  # It has just ended.
            if int(fields[1]) == me:
                found.append(int(name))
    return found


def _end(server: int, timeout_s: float, code: int | None) -> int:
    """End the group and whatever was adopted; return the server's exit code."""
    deadline = time.monotonic() + timeout_s
    number = signal.SIGTERM
    _signal_group(server, number)
    while True:
        code = _reap().get(server, code)
        orphans = _children()
        if not _signal_group(server, 0) and not orphans:
            return -signal.SIGTERM if code is None else code
        # Adopted ones have lost their server already: no need to be gentle once it has ended.
        if time.monotonic() > deadline:
            number = signal.SIGKILL
            _signal_group(server, number)
        if code is not None or number == signal.SIGKILL:
            for pid in orphans:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass  # It has just ended.
        time.sleep(0.02)


def _finish(command: list[str], server: int, timeout_s: float, code: int | None) -> int | None:
    """Give the server its time and run the command; return the server's exit code if it has one."""
    import subprocess  # Here, since most keepers need none of it.

    deadline = time.monotonic() + timeout_s
    _signal_group(server, signal.SIGTERM)
    while code is None and time.monotonic() < deadline:
        time.sleep(0.02)
        code = _reap().get(server)
    try:
        # Mostly there is nothing left to end, and the command complains: nobody needs to know.
        silent = subprocess.DEVNULL
        subprocess.run(command, timeout=_FINISH_S, stdin=silent, stdout=silent, stderr=silent)
    except (OSError, subprocess.TimeoutExpired):
        pass  # An engine that does not work any more; its own server can still be ended.
    return code


def main() -> int:
    """Keep the server until it or the agent ends."""
    split = sys.argv.index("--")
    timeout_s, finish, command = float(sys.argv[1]), sys.argv[2:split], sys.argv[split + 1 :]
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    keeper = os.getpid()
    started, starting = os.pipe()
    server = os.fork()
    if server == 0:
        for restored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(restored, signal.SIG_DFL)
        _run(command, keeper)
    # Until it runs its command there is no group that a signal would reach.
    os.close(starting)
    os.read(started, 1)  # The end of the other side, which the command does not inherit.
    code = None
    while code is None:
        readable, _, _ = select.select([0, woken], [], [])
        if woken in readable:
            os.read(woken, 512)
            code = _reap().get(server)
        if 0 in readable and not os.read(0, 512):
            break
    if finish:
        code = _finish(finish, server, timeout_s, code)
        timeout_s = min(timeout_s, _LAST_S)
    code = _end(server, timeout_s, code)
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main())
