"""How answers look in a terminal: nothing a server or client is called can move the cursor or colour the screen."""

import sys
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from xfleet_contracts.errors import Refusal, RemoteRefusal
from xfleet_runtime.main import run_async

EXIT_REFUSED = 1
KIBI = 1024
COLOURS = {"online": "green", "completed": "green", "active": "green", "offline": "red", "failed": "red",
           "stale": "yellow", "degraded": "yellow", "expired": "red", "running": "cyan"}  # fmt: skip


def plain(text: object) -> str:
    """The text without anything a terminal would obey, or that turns its direction."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(text))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of columns as wide as their widest cell; words with a meaning are coloured where colours are shown."""
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(head), *cells]) for column in range(len(head))]
    lines = ["  ".join(name.upper().ljust(width) for name, width in zip(head, widths, strict=True)).rstrip()]
    for row in cells:
        parts = [click.style(cell.ljust(width), fg=COLOURS.get(cell)) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(parts).rstrip())
    return lines


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < KIBI or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= KIBI
    raise AssertionError(count)


def rate(bytes_s: int) -> str:
    """Bytes per second."""
    return f"{size(bytes_s)}/s"


def moment(at_ms: int) -> str:
    """A moment in this machine's own time zone; `-` for never."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S") if at_ms else "-"


def say_json(value: Any) -> None:
    """One line of JSON, for programs."""
    click.echo(msgspec.json.encode(value).decode())


def carry_out(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a verb; a refusal becomes one line with its word and exit code 1."""
    try:
        run_async(work())
    except Refusal as refusal:
        code = refusal.remote_code if isinstance(refusal, RemoteRefusal) else refusal.code
        sys.stderr.write(f"xfleet: {plain(refusal.text)} ({plain(code)})\n")
        sys.exit(EXIT_REFUSED)
