"""How a command begins and how it ends: one line on stderr for what ended it, and an exit code.

It imports nothing that takes time, so that Ctrl-C is Ctrl-C from the first moment on.
"""

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from batch_transform_cli import shell_completion
from batch_transform_cli.errors import CommandError, Interrupted

BROKEN_PIPE = 128 + 13
"""The exit code of a program whose reader is gone, by SIGPIPE; all systems number it so."""

_INSTALLED_WITH_CLI = ("typer", "rich", "boto3", "botocore")
_ENDING = ("SIGTERM", "SIGHUP")


class _Signalled(SystemExit):
    """A signal ends the program, and what it holds is put away first."""


def app() -> None:
    """Run the command; whatever it cannot do is one line on stderr."""
    sys.exit(_run())


def _run() -> int:
    _let_every_character_be_written()
    try:
        with _ended_by_signals():
            _commands()
            return 0
    except _Signalled as ended:
        return _said(f"ended by {signal.Signals(int(str(ended.code)) - 128).name}", ended.code)
    except SystemExit as ended:
        # What typer and rich make of these.
        if _is_due_to(ended, BrokenPipeError):
            return _quiet()
        if _is_due_to(ended, KeyboardInterrupt):
            return _said("stopped", Interrupted.exit_code)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        return _said("stopped", Interrupted.exit_code)
    except BrokenPipeError:
        return _quiet()
    except CommandError as error:
        return _said(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        if error.name not in _INSTALLED_WITH_CLI:
            raise
        return _said(
            f"the command must be installed, got no module {error.name}; "
            "pip install 'batch-transform[cli]'",
            1,
        )
    except Exception as error:
        from batch_transform_cli.outside import explained

        words = explained(error)
        if words is None:
            raise  # Ours: where it happened is what we need to know.
        return _said(words, 1)


def _commands() -> None:
    from batch_transform_cli.main import commands

    if shell_completion.is_asked():
        shell_completion.prepare()
    try:
        commands()
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # While somebody looks whether it can be written.


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let signals that end programs end this one by an exception."""

    def end(number: int, frame: FrameType | None) -> None:
        raise _Signalled(128 + number)

    before = {}
    for name in _ENDING:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # as nohup wants it
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _let_every_character_be_written() -> None:
    """A terminal that lacks a character gets its number in place of it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _is_due_to(error: BaseException, kind: type[BaseException]) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, kind):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _said(words: str, exit_code: object) -> int:
    from batch_transform_cli.screen import printable

    shown = "\n".join(printable(line) for line in words.split("\n"))
    print(f"batch-transform: {shown}", file=sys.stderr)
    return int(str(exit_code))


def _quiet() -> int:
    """End without the words that Python has for what it cannot write any more."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    return BROKEN_PIPE
