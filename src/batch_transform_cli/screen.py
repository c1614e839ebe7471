"""How tables, texts from outside and numbers stand on a screen."""

import os

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH_OF_FILES = 200


def console() -> Console:
    """Return standard output's console; off a terminal lines fold late, for `grep` and files."""
    found = Console()
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = _WIDTH_OF_FILES
    return found


def can_redraw(console: Console) -> bool:
    """Whether what it shows can be replaced; else it is told in lines."""
    return console.is_terminal and not console.is_dumb_terminal


def unfolded(text: str) -> Text:
    """Return a line that stays one in what is copied from a narrow terminal: it names a place."""
    return Text(text, no_wrap=True, overflow="ignore")


def plain_table() -> Table:
    """Return a table without lines, as wide as its content."""
    return Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold", expand=False)


def printable(text: str) -> str:
    """Return text that cannot steer the terminal: keys and reasons hold what users uploaded."""
    return "".join(character if character.isprintable() else "·" for character in text)


def counted(number: int, noun: str) -> str:
    """Return a number of things: `1 record`, `1,200 records`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def minute(time: str) -> str:
    """Return month, day and minute of a time in ISO 8601, as it stands in a column."""
    return time[5:16].replace("T", " ")


def size(count: float) -> str:
    """Return a number of bytes for a person."""
    if count < 10_000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def duration(seconds: int) -> str:
    """Return how long something takes, by its two largest units: `45 s`, `3 min 5 s`, `2 d 4 h`."""
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
