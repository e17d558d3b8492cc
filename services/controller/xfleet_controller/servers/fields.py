"""What a person may say about a server, and what is wrong with it. Pure."""

import re
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from xfleet_contracts.subjects import SLUG
from xfleet_controller.errors import FieldError
from xfleet_controller.servers.addresses import is_address
from xfleet_controller.texts import NEWLINES, has_controls

MAX_NAME, MAX_REGION, MAX_TAGS, MAX_TAG, MAX_NOTES = 100, 100, 50, 50, 20_000
ACTIVE, DRAIN, MAINTENANCE = "active", "drain", "maintenance"
MODES = (ACTIVE, DRAIN, MAINTENANCE)


class ServerEdit(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What may be changed; what is left out stays."""

    name: str | UnsetType = UNSET
    public_address: str | UnsetType = UNSET
    region: str | UnsetType = UNSET
    notes: str | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET
    allow_private_destinations: bool | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    """False: its inbounds and clients are taken off it and out of subscriptions; its agent stays connected."""
    mode: str | UnsetType = UNSET
    """active, drain (handed to nobody new, those connected go on) or maintenance (also without alerts)."""
    version: int | UnsetType = UNSET
    """As read; when given, a change in between refuses the edit."""


class ServerNew(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A server to be enrolled."""

    name: str
    slug: str = ""
    """Empty: made from the name."""
    public_address: str = ""
    region: str = ""
    notes: str = ""
    tags: list[str] = []


def cleaned_fields(given: dict[str, Any]) -> dict[str, Any]:
    """Texts without spaces around them, tags each once; what was left out stays left out."""
    fields = {name: value.strip() if isinstance(value, str) else value for name, value in given.items()}
    if isinstance(fields.get("tags"), list):
        fields["tags"] = list(dict.fromkeys(tag.strip() for tag in fields["tags"]))
    return fields


def slug_from(name: str) -> str:
    """A slug from a name; empty when nothing of the name can stand in one."""
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:63]


def errors_of(fields: dict[str, Any]) -> list[FieldError]:
    """What is wrong with these fields; none when nothing is."""
    errors: list[FieldError] = []
    name = fields.get("name")
    if name is not None and not 0 < len(name) <= MAX_NAME:
        errors.append(FieldError("name", f"The name needs 1 to {MAX_NAME} characters.", "bad_name"))
    if len(fields.get("region", "")) > MAX_REGION:
        errors.append(FieldError("region", f"The region may have at most {MAX_REGION} characters.", "too_long"))
    address = fields.get("public_address")
    if address and not is_address(address):
        reason = "Give a host name or an IP address, without port or path."
        errors.append(FieldError("public_address", reason, "bad_address"))
    if len(fields.get("notes", "")) > MAX_NOTES:
        errors.append(FieldError("notes", f"The notes may have at most {MAX_NOTES} characters.", "too_long"))
    tags = fields.get("tags", ())
    if len(tags) > MAX_TAGS or any(not 0 < len(tag) <= MAX_TAG or "," in tag for tag in tags):
        reason = f"At most {MAX_TAGS} tags of 1 to {MAX_TAG} characters, without commas."
        errors.append(FieldError("tags", reason, "bad_tags"))
    if fields.get("mode", ACTIVE) not in MODES:
        errors.append(FieldError("mode", f"The mode is one of {', '.join(MODES)}.", "bad_mode"))
    return [*errors, *_control_errors(fields)]


def slug_problem(slug: str) -> FieldError | None:
    """What is wrong with a slug."""
    if SLUG.fullmatch(slug):
        return None
    reason = "Use lower-case letters, digits, - and _, beginning with a letter or digit; at most 63."
    return FieldError("slug", reason, "bad_slug")


def _control_errors(fields: dict[str, Any]) -> list[FieldError]:
    texts = {field: fields.get(field, "") for field in ("name", "region", "notes")}
    texts["tags"] = "".join(fields.get("tags", ()))
    return [
        FieldError(field, "Control characters are not allowed here.", "control_characters")
        for field, text in texts.items()
        if has_controls(text, allowed=NEWLINES if field == "notes" else "")
    ]
