"""What the doctor found: one line each."""

from collections.abc import Sequence
from typing import Literal

import msgspec

Status = Literal["ok", "warning", "failed"]
_MARKS = {"ok": "ok     ", "warning": "WARNING", "failed": "FAILED "}
EXIT_FAILED = 1


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    check: str
    """A stable word, for programs."""
    status: Status
    message: str
    advice: str = ""
    """What to do about it; empty when there is nothing to do."""


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check=check, status="ok", message=message)


def warning(check: str, message: str, advice: str) -> Finding:
    """It works, but somebody should look."""
    return Finding(check=check, status="warning", message=message, advice=advice)


def failed(check: str, message: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(check=check, status="failed", message=message, advice=advice)


def lines_of(findings: Sequence[Finding]) -> list[str]:
    """For people: one line each, and a summary."""
    lines = [
        f"{_MARKS[each.status]} {each.check:<13} {each.message}{f' → {each.advice}' if each.advice else ''}"
        for each in findings
    ]
    bad, odd = (sum(each.status == status for each in findings) for status in ("failed", "warning"))
    verdict = "All is well." if not bad and not odd else f"{bad} failed, {odd} to look at."
    return [*lines, "", verdict]


def exit_code(findings: Sequence[Finding]) -> int:
    """0 unless something failed."""
    return EXIT_FAILED if any(each.status == "failed" for each in findings) else 0
