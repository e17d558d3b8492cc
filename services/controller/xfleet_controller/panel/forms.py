"""Posted forms as text, and refusals put beside the fields they are about."""

from collections.abc import Mapping, Sequence
from typing import Any

from litestar import Request

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.rights import Forbidden
from xfleet_controller.errors import EditedMeanwhile, FieldError, Invalid
from xfleet_controller.panel.views import FormView, OptionView
from xfleet_controller.servers.wording import words_of

MAX_FIELD = 200_000
MAX_DIGITS = 18
"""A longer number is no id and no version: it would not fit the database."""


class Fields:
    """A posted form: strings only, each at most `MAX_FIELD` characters."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._pairs = [(name, value[:MAX_FIELD].replace("\r\n", "\n")) for name, value in pairs]

    def text(self, name: str) -> str:
        """The value of a field without surrounding spaces; empty when it was not sent."""
        return next((value.strip() for given, value in self._pairs if given == name), "")

    def secret(self, name: str) -> str:
        """The value of a field exactly as typed."""
        return next((value for given, value in self._pairs if given == name), "")

    def is_on(self, name: str) -> bool:
        """Whether a check box was ticked."""
        return self.text(name) != ""

    def every(self, name: str) -> list[str]:
        """All values of a group of check boxes."""
        return [value.strip() for given, value in self._pairs if given == name]

    def words(self, name: str) -> list[str]:
        """The values of a field that takes several, separated by commas, spaces or lines."""
        return [word for word in self.text(name).replace(",", " ").split() if word]

    def values(self) -> dict[str, str]:
        """All values, for showing the form again; secrets excepted by the form itself."""
        return {name: value.strip() for name, value in self._pairs}


def whole_number(text: str) -> int | None:
    """A number of at most 18 digits; None for anything else."""
    return int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else None


async def read_fields(request: Request[Any, Any, Any]) -> Fields:
    """The posted form; files are left out."""
    form = await request.form()
    return Fields([(name, value) for name, value in form.multi_items() if isinstance(value, str)])


def refused(
    values: Mapping[str, str],
    refusal: Refusal,
    *,
    names: Mapping[str, str] | None = None,
    options: Mapping[str, tuple[OptionView, ...]] | None = None,
) -> FormView:
    """The form again with what was wrong.

    `names` maps a path of the refusal to the form's field that stands for it, by the longest beginning; what no field
    stands for is shown above the form, with its path. What the role does not allow is no matter of a field: it is
    raised again.
    """
    if isinstance(refusal, Forbidden):
        raise refusal
    errors: dict[str, str] = {}
    for error in _errors_of(refusal):
        field, rest = _field_for(error.field, names or {}, values)
        reason = f"{rest}: {error.reason}" if rest else error.reason
        errors[field] = f"{errors[field]} {reason}" if field in errors else reason
    return FormView(values=dict(values), errors=errors, options=dict(options or {}))


def refused_later(values: Mapping[str, str], refusal: Refusal, *, names: Mapping[str, str] | None = None) -> FormView:
    """As `refused`; what somebody else saved meanwhile stands beside each field that was typed differently.

    The form then carries the new version: saved once more, it is meant.
    """
    form = refused(values, refusal, names=names)
    if not isinstance(refusal, EditedMeanwhile):
        return form
    errors = dict(form.errors)
    for path, pair in refusal.changed.items():
        field, rest = _field_for(path, names or {}, values)
        theirs = f"Saved by somebody else: {words_of(pair['theirs'])}."
        told = f"{rest}: {theirs}" if rest else theirs
        errors[field] = f"{errors[field]} {told}" if field in errors else told
    return FormView(values=form.values | {"version": str(refusal.version)}, errors=errors, options=form.options)


def _errors_of(refusal: Refusal) -> Sequence[FieldError]:
    if isinstance(refusal, Invalid):
        return refusal.errors
    field = refusal.details.get("field", "")
    return (FieldError(str(field), refusal.text, refusal.code),)


def _field_for(path: str, names: Mapping[str, str], values: Mapping[str, str]) -> tuple[str, str]:
    """The form's field for a path, and what of the path that field does not say."""
    matching = [start for start in names if path == start or path.startswith((f"{start}.", f"{start}["))]
    if matching:
        start = max(matching, key=len)
        return names[start], path[len(start) :].lstrip(".")
    return (path, "") if path in values else ("", path)
