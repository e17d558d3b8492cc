"""The script of the joining line: a template in which everything to be fetched is named with its SHA-256."""

import re
from collections.abc import Mapping, Sequence
from importlib import resources

from xfleet_controller.install.closure import pinned_text
from xfleet_controller.install.wheels import WheelFile

TEMPLATE = "agent.sh"
_HARMLESS = re.compile(r"[A-Za-z0-9_.+!-]+")


def render_script(version: str, wheel: WheelFile, sets: Mapping[str, Sequence[WheelFile]]) -> str:
    """The script. Raises `ValueError` for a name that could mean something to a shell."""
    text = resources.files("xfleet_controller.install").joinpath(TEMPLATE).read_text(encoding="utf-8")
    cases = "".join(
        f"  {_checked(name)})\n    cat <<'END'\n{_lines(files)}END\n    ;;\n" for name, files in sorted(sets.items())
    )
    for mark, value in {
        "@VERSION@": _checked(version),
        "@WHEEL@": _lines([wheel]).strip(),
        "@WHEELS@\n": cases,
        "@PINNED@": pinned_text(),
    }.items():
        text = text.replace(mark, value)
    return text


def _lines(files: Sequence[WheelFile]) -> str:
    return "".join(f"{each.sha256} {each.size_bytes} {_checked(each.name)}\n" for each in files)


def _checked(text: str) -> str:
    if not _HARMLESS.fullmatch(text):
        raise ValueError(f"{text!r} cannot stand in a script")
    return text
