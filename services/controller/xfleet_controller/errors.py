"""Refusals that several features share."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from xfleet_contracts.errors import Refusal


class FieldError(NamedTuple):
    """What is wrong with one field of a form or body."""

    field: str
    reason: str
    code: str = "invalid"


class NotFound(Refusal):
    """What was named does not exist."""

    code = "not_found"
    status = 404
    message = "There is no such thing."


class Invalid(Refusal):
    """A body or form whose fields are wrong; nothing was saved."""

    code = "invalid"
    status = 422
    message = "Some fields are wrong."

    def __init__(self, errors: Iterable[FieldError], message: str | None = None) -> None:
        self.errors = tuple(errors)
        first = self.errors[0].reason if self.errors else None
        super().__init__(message or first, errors=[dict(each._asdict()) for each in self.errors])


class EditedMeanwhile(Refusal):
    """Somebody else changed it since it was read; nothing of the later edit was saved."""

    code = "edited_meanwhile"
    status = 409
    message = "Somebody else changed this in the meantime. Nothing was saved: look at both and repeat your change."

    def __init__(self, version: int, changed: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.version = version
        """Of what is stored now."""
        self.changed = dict(changed or {})
        """By field: `theirs`, as it is stored now, and `yours`, as it was asked for; secrets are left out."""
        super().__init__(version=version, changed=self.changed)


class Conflict(Refusal):
    """What was asked collides with what is there."""

    code = "conflict"
    status = 409
    message = "This collides with something that exists."


class BusUnavailable(Refusal):
    """The controller has no link to the broker."""

    code = "broker_unreachable"
    status = 503
    message = "The broker cannot be reached now."


def invalid(field: str, reason: str, code: str = "invalid") -> Invalid:
    """A refusal about one field."""
    return Invalid([FieldError(field, reason, code)])


def check_version(given: Any, current: int, changed: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Refuses an edit of something that has changed since; without a version given nothing is compared."""
    if given is not None and given != current:
        raise EditedMeanwhile(current, changed)


def both(theirs: Mapping[str, Any], yours: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The fields of an edit that differ from what is stored, in the form of `EditedMeanwhile.changed`."""
    return {
        name: {"theirs": theirs[name], "yours": value}
        for name, value in yours.items()
        if name in theirs and theirs[name] != value
    }
