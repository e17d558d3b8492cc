"""The last heartbeat as it is kept for when nobody is heard: cleaned, because agents say what they like."""

import math
from typing import Any

import msgspec

from xfleet_contracts.heartbeat import Heartbeat, HostFigures, XrayState
from xfleet_controller.texts import cleaned

MAX_TEXT = 200
MAX_ADDRESSES = 16
MAX_CAPABILITIES = 32
MAX_FLOAT = 1e15


def kept_beat(beat: Heartbeat) -> dict[str, Any]:
    """The beat without its clients, in a form every database takes."""
    return msgspec.to_builtins(
        msgspec.structs.replace(
            beat,
            online=(),
            capabilities=tuple(cleaned(each, MAX_TEXT) for each in beat.capabilities[:MAX_CAPABILITIES]),
            host=_cleaned_host(beat.host),
            xray=_cleaned_xray(beat.xray),
            **_texts(beat),
        )
    )


def read_beat(kept: Any) -> Heartbeat | None:
    """A beat that was kept; None when there is none, or when it is of a form this release cannot read."""
    if kept is None:
        return None
    try:
        return msgspec.convert(kept, Heartbeat)
    except msgspec.ValidationError:
        return None


def _cleaned_host(host: HostFigures) -> HostFigures:
    addresses = tuple(cleaned(each, MAX_TEXT) for each in host.addresses[:MAX_ADDRESSES])
    floats = {name: _finite(getattr(host, name)) for name in ("cpu_percent", "load_1m")}
    return msgspec.structs.replace(host, addresses=addresses, **floats, **_texts(host))


def _cleaned_xray(xray: XrayState) -> XrayState:
    return msgspec.structs.replace(xray, **_texts(xray) | {"status": xray.status})


def _texts(part: msgspec.Struct) -> dict[str, str]:
    values = ((name, getattr(part, name)) for name in part.__struct_fields__)
    return {name: cleaned(value, MAX_TEXT) for name, value in values if isinstance(value, str)}


def _finite(value: float) -> float:
    return max(-MAX_FLOAT, min(MAX_FLOAT, value)) if math.isfinite(value) else 0.0
