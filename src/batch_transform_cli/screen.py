"""How tables, texts from outside and numbers stand on a screen."""

from rich.table import Table


def plain_table() -> Table:
    """Return a table without lines, as wide as its content."""
    return Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold", expand=False)


def printable(text: str) -> str:
    """Return text that cannot steer the terminal: keys and reasons hold what users uploaded."""
    return "".join(character if character.isprintable() else "·" for character in text)


def counted(number: int, noun: str) -> str:
    """Return a number of things: `1 record`, `1,200 records`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(count: float) -> str:
    """Return a number of bytes for a person."""
    if count < 10_000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"
