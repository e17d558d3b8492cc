"""The client form: quota with its unit and expiry as a day, turned into bytes and a moment, and back. Pure."""

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation

from msgspec import UNSET

from xfleet_controller.clients.models import Client
from xfleet_controller.clients.service import ClientEdit, ClientNew
from xfleet_controller.errors import FieldError, Invalid
from xfleet_controller.inbounds.views import InboundRowView
from xfleet_controller.panel.forms import Fields, whole_number
from xfleet_controller.panel.views import OptionView
from xfleet_ui.filters import format_wire

UNITS = {"MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
BYTES = "B"
MAX_QUOTA_BYTES = 2**62
FIELD_NAMES = {"total_bytes": "quota", "expires_at": "expires_at", "inbound_ids": "inbound_ids"}
ONE_DAY = timedelta(days=1)


def new_values() -> dict[str, str]:
    """What the form proposes for a new client."""
    return {"quota_unit": "GB", "enabled": "on"}


def stored_values(row: Client) -> dict[str, str]:
    """What the form shows of a client that exists."""
    quota, unit = quota_words(row.total_bytes)
    return {
        "name": row.name,
        "quota": quota,
        "quota_unit": unit,
        "expires_at": last_day(row.expires_at),
        "comment": row.comment,
        "enabled": "on" if row.enabled else "",
        "version": str(row.version),
    }


def new_client(fields: Fields) -> ClientNew:
    """The client a filled-in form asks for. Raises `Invalid`."""
    total_bytes, expires_at = _limits(fields)
    return ClientNew(
        name=fields.text("name"),
        inbound_ids=_inbound_ids(fields),
        total_bytes=total_bytes,
        expires_at=expires_at,
        enabled=fields.is_on("enabled"),
        comment=fields.text("comment"),
    )


def edited_client(fields: Fields, before: Client) -> ClientEdit:
    """The change a filled-in form asks for; limits that read as before stay exactly as they are. Raises `Invalid`."""
    total_bytes, expires_at = _limits(fields)
    same_quota = (fields.text("quota"), fields.text("quota_unit")) == quota_words(before.total_bytes)
    same_expiry = fields.text("expires_at") == last_day(before.expires_at)
    return ClientEdit(
        name=fields.text("name"),
        inbound_ids=_inbound_ids(fields),
        total_bytes=UNSET if same_quota else total_bytes,
        expires_at=UNSET if same_expiry else expires_at,
        enabled=fields.is_on("enabled"),
        comment=fields.text("comment"),
        version=UNSET if (version := whole_number(fields.text("version"))) is None else version,
    )


def quota_words(total_bytes: int | None) -> tuple[str, str]:
    """A quota as number and unit: the largest unit that says it exactly with two decimals, else bytes."""
    if not total_bytes:
        return "", "GB"
    for unit, size in reversed(UNITS.items()):
        if total_bytes >= size and total_bytes * 100 % size == 0:
            text = f"{Decimal(total_bytes) / size:f}"
            return (text.rstrip("0").rstrip(".") if "." in text else text), unit
    return str(total_bytes), BYTES


def last_day(expires_at: datetime | None) -> str:
    """The last day on which a client may still connect, as a date field wants it."""
    return "" if expires_at is None else (expires_at - timedelta(microseconds=1)).astimezone(UTC).date().isoformat()


def unit_options(chosen: str) -> tuple[OptionView, ...]:
    """The units to choose from; bytes only where a quota needs them."""
    units = [*UNITS, BYTES] if chosen == BYTES else list(UNITS)
    return tuple(OptionView(value=unit, label=unit) for unit in units)


def inbound_options(
    rows: Sequence[InboundRowView], chosen: Collection[int], *, single_server: bool
) -> tuple[OptionView, ...]:
    """The inbounds to choose from."""
    return tuple(
        OptionView(
            value=str(row.id),
            label=row.title,
            hint=" · ".join(part for part in _place(row, single_server=single_server) if part),
            chosen=row.id in chosen,
        )
        for row in rows
    )


def _place(row: InboundRowView, *, single_server: bool) -> tuple[str, ...]:
    server = "" if single_server else row.server_name
    security = "" if row.security in {"", "none"} else row.security
    return (
        server,
        format_wire(row.protocol),
        format_wire(row.network),
        format_wire(security),
        str(row.port),
        "" if row.enabled else "disabled",
    )


def _inbound_ids(fields: Fields) -> list[int]:
    return [number for each in fields.every("inbound_ids") if (number := whole_number(each)) is not None]


def _limits(fields: Fields) -> tuple[int | None, datetime | None]:
    errors: list[FieldError] = []
    total_bytes, expires_at = None, None
    try:
        total_bytes = _quota_bytes(fields.text("quota"), fields.text("quota_unit"))
    except ValueError:
        reason = "The quota is a number, such as 50 or 2.5; empty for no limit."
        errors.append(FieldError("quota", reason, "not_a_number"))
    if day := fields.text("expires_at"):
        try:
            expires_at = datetime.combine(date.fromisoformat(day) + ONE_DAY, time(), UTC)
        except (ValueError, OverflowError):
            errors.append(FieldError("expires_at", "This is not a date.", "not_a_date"))
    if errors:
        raise Invalid(errors)
    return total_bytes, expires_at


def _quota_bytes(text: str, unit: str) -> int | None:
    """Bytes of a quota; None for none. Raises `ValueError`."""
    if not text:
        return None
    try:
        number = Decimal(text.replace(",", "."))
    except InvalidOperation as error:
        raise ValueError(text) from error
    if not number.is_finite() or not 0 <= number < MAX_QUOTA_BYTES:
        raise ValueError(text)
    total = int(number * UNITS.get(unit, 1))
    if total >= MAX_QUOTA_BYTES:
        raise ValueError(text)
    return total or None
