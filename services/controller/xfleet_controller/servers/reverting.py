"""What going back to an earlier configuration means today: old settings, present secrets, nobody resurrected. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from xfleet_contracts.codec import REDACTED
from xfleet_contracts.desired_state import InboundBody
from xfleet_controller.servers.versions import InboundForm, bare, is_secret, is_secret_key
from xfleet_xraykit.generate import complete_inbound

_GONE: Any = object()
"""There is no value here."""
REGENERATED = frozenset({"stream_settings.realitySettings.privateKey"})
"""Secrets that are simply made anew when there is none to keep."""
SHORT_IDS = "shortIds"
OBJECT_FIELDS = ("settings", "stream_settings", "sniffing")


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """An inbound as it would be after going back."""

    body: InboundBody
    lost: tuple[str, ...] = ()
    """Paths of secrets it needs and nobody has any more."""


def restored_body(form: InboundForm, ref: int, present: InboundBody | None) -> Restored:
    """The old settings with the secrets of `present`; without one, with new keys."""
    lost: list[str] = []
    objects: dict[str, dict[str, Any]] = {}
    for name in OBJECT_FIELDS:
        held = _GONE if present is None else getattr(present, name)
        objects[name] = _filled(getattr(form, name), held, name, lost)
    if present is None:
        objects["stream_settings"] = _without_short_ids(objects["stream_settings"])
    body = InboundBody(ref=ref, listen=form.listen, port=form.port, protocol=form.protocol, **objects)
    missing = tuple(path for path in lost if path not in REGENERATED)
    return Restored(body=body if missing else complete_inbound(body), lost=missing)


def _filled(form: Any, present: Any, path: str, lost: list[str]) -> Any:
    """The form with each hidden secret put back from the same place; what has none is left away and noted."""
    if isinstance(form, dict):
        filled: dict[str, Any] = {}
        for key, value in form.items():
            held = present.get(key, _GONE) if isinstance(present, dict) else _GONE
            if value == REDACTED and is_secret_key(key):
                if held is not _GONE and is_secret(key, held):
                    filled[key] = held
                else:
                    lost.append(f"{path}.{key}")
            else:
                filled[key] = _filled(value, held, f"{path}.{key}", lost)
        return filled
    if isinstance(form, list):
        held = present if isinstance(present, list) else []
        return [_filled(each, _partner(form, at, held), f"{path}[{at}]", lost) for at, each in enumerate(form)]
    return form


def _partner(form: list[Any], at: int, present: list[Any]) -> Any:
    """The item of the present list that is this one apart from its secrets; the only one of both lists goes, too."""
    for each in present:
        if bare(each) == form[at]:
            return each
    return present[0] if len(form) == len(present) == 1 else _GONE


def _without_short_ids(stream: Mapping[str, Any]) -> dict[str, Any]:
    reality = stream.get("realitySettings")
    if not isinstance(reality, dict):
        return dict(stream)
    return dict(stream) | {"realitySettings": {key: each for key, each in reality.items() if key != SHORT_IDS}}
