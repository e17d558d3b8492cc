"""What only the server can know: keys, short ids, credentials. Pure apart from the random source."""

from typing import Any

import msgspec

from xfleet_contracts.desired_state import ClientBody, InboundBody
from xfleet_xraykit.problems import as_object
from xfleet_xraykit.protocols import find_protocol, find_security, settings_of


def complete_inbound(body: InboundBody) -> InboundBody:
    """The inbound with everything generated that is missing; what was given stays as it is."""
    settings: dict[str, Any] = dict(body.settings)
    protocol = find_protocol(body)
    if protocol is not None:
        settings = protocol.complete(settings)
    stream = dict(body.stream_settings)
    security = find_security(stream)
    if security is not None and security.settings_keys:
        key, given = settings_of(stream, security.settings_keys)
        if key not in stream or as_object(stream[key]) == stream[key]:
            stream[key] = security.complete(given)
    return msgspec.structs.replace(body, settings=settings, stream_settings=stream)


def complete_client(client: ClientBody, inbound: InboundBody) -> ClientBody:
    """The client with a credential for this inbound when it has none; a given one keeps its own flow."""
    protocol = find_protocol(inbound)
    if protocol is None or getattr(client, protocol.credential):
        return client
    return msgspec.structs.replace(client, **protocol.new_credential(inbound))


def default_flow(inbound: InboundBody) -> str:
    """The flow a new client of this inbound gets."""
    protocol = find_protocol(inbound)
    return "" if protocol is None else protocol.new_credential(inbound).get("flow", "")
