"""The difference between two configurations as words: which field, from what, to what. Pure."""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from xfleet_contracts.codec import REDACTED
from xfleet_controller.servers.versions import ConfigForm, InboundForm

NOT_SET = "not set"
EMPTY = "empty"
SECRET = "a secret"  # noqa: S105  the word for one
MAX_WORDS = 300
PLAIN_FIELDS = ("remark", "listen", "port", "protocol", "enabled")
OBJECT_FIELDS = ("settings", "stream_settings", "sniffing")


class ConfigChange(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a difference."""

    change: Literal["add", "change", "remove"]
    kind: str
    """inbound, outbound, rule, settings or server."""
    id: str
    """An inbound's ref, else the id of its kind."""
    name: str
    """As people know it."""
    path: str = ""
    """The field; empty when all of it came or went."""
    old: str = ""
    new: str = ""


def list_changes(old: ConfigForm, new: ConfigForm) -> list[ConfigChange]:
    """What leads from the old configuration to the new one, inbounds first."""
    changes: list[ConfigChange] = []
    for ref in sorted(old.inbounds.keys() | new.inbounds.keys(), key=lambda each: (len(each), each)):
        changes += _inbound_changes(ref, old.inbounds.get(ref), new.inbounds.get(ref))
    if old.allow_private_destinations != new.allow_private_destinations:
        before, after = words_of(old.allow_private_destinations), words_of(new.allow_private_destinations)
        changes.append(
            ConfigChange(
                change="change", kind="server", id="server", name="Server", path="allow_private_destinations",
                old=before, new=after,
            )
        )  # fmt: skip
    for name in sorted(old.entities.keys() | new.entities.keys()):
        changes += _entity_changes(name, old.entities.get(name), new.entities.get(name))
    return changes


def words_of(value: Any) -> str:
    """A plain value, or a list of them, as people write it."""
    if value is None:
        return NOT_SET
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        text = ", ".join(words_of(each) for each in value) or EMPTY
    elif value == REDACTED:
        text = SECRET
    else:
        text = str(value) if value not in ("", {}) else EMPTY
    return text if len(text) <= MAX_WORDS else f"{text[: MAX_WORDS - 1]}…"


def _inbound_changes(ref: str, old: InboundForm | None, new: InboundForm | None) -> Iterator[ConfigChange]:
    if old is None or new is None:
        one = new or old
        if one is not None:
            change: Literal["add", "remove"] = "add" if old is None else "remove"
            yield ConfigChange(change=change, kind="inbound", id=ref, name=one.title, **_both(_short(old), _short(new)))
        return
    for path, before, after in _field_changes(_fields(old), _fields(new)):
        yield ConfigChange(change="change", kind="inbound", id=ref, name=new.title, path=path, old=before, new=after)


def _entity_changes(name: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> Iterator[ConfigChange]:
    kind, _, entity_id = name.partition(" ")
    if old is None or new is None:
        yield ConfigChange(change="add" if old is None else "remove", kind=kind, id=entity_id, name=entity_id)
        return
    for path, before, after in _field_changes(dict(leaves(old, "")), dict(leaves(new, ""))):
        yield ConfigChange(change="change", kind=kind, id=entity_id, name=entity_id, path=path, old=before, new=after)


def _field_changes(old: dict[str, str], new: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    for path in [*old, *(each for each in new if each not in old)]:
        before, after = old.get(path, NOT_SET), new.get(path, NOT_SET)
        if before != after:
            yield path, before, after


def _fields(form: InboundForm) -> dict[str, str]:
    found = {name: words_of(getattr(form, name)) for name in PLAIN_FIELDS}
    for name in OBJECT_FIELDS:
        found |= dict(leaves(getattr(form, name), name))
    return found


def leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every plain value with its path; lists of plain values stay together."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from leaves(each, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(each, (dict, list)) for each in value):
        for index, each in enumerate(value):
            yield from leaves(each, f"{path}[{index}]")
    elif value != {}:
        yield path, words_of(value)


def _short(form: InboundForm | None) -> str:
    if form is None:
        return ""
    network, security = (str(form.stream_settings.get(name) or "") for name in ("network", "security"))
    return ", ".join(part for part in (form.protocol, network, security, f"port {form.port}") if part)


def _both(old: str, new: str) -> dict[str, str]:
    return {"old": old, "new": new}
