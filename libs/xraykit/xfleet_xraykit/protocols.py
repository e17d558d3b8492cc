"""The protocols, transports and securities we speak: one file each, found by looking into their packages.

`inbounds/<name>.py` has a `PROTOCOL`, `transports/<name>.py` a `TRANSPORT`, `security/<name>.py` a `SECURITY`.
Adding one is adding a file.
"""

import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Protocol, cast

from xfleet_contracts.desired_state import ClientBody, InboundBody
from xfleet_xraykit.accounts import Account
from xfleet_xraykit.problems import Problem, as_object


class InboundProtocol(Protocol):
    """What one protocol of inbounds knows about itself."""

    name: str
    """As in Xray's JSON."""
    account_type: str
    """Protobuf name of its accounts."""
    config_type: str
    """Protobuf name of its inbound settings: how a running inbound tells its protocol."""
    credential: str
    """The field of `ClientBody` that must be unique on an inbound."""

    def lint_inbound(self, body: InboundBody) -> Iterator[Problem]:
        """What is wrong with the settings."""
        ...

    def lint_client(self, client: ClientBody, inbound: InboundBody | None) -> Iterator[Problem]:
        """What is wrong with the client, on this inbound when it is known."""
        ...

    def complete(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings with what only the server can know."""
        ...

    def new_credential(self, inbound: InboundBody) -> dict[str, str]:
        """Fresh values for the fields of `ClientBody` that this protocol uses."""
        ...

    def render_settings(self, settings: Mapping[str, Any], users: Sequence[tuple[str, ClientBody]]) -> dict[str, Any]:
        """Xray's `settings` with these `(email, client)` as its users."""
        ...

    def account(self, client: ClientBody, inbound: InboundBody) -> Account:
        """What is sent to add the client to the running inbound."""
        ...

    def link(self, inbound: InboundBody, client: ClientBody) -> tuple[str, dict[str, str]]:
        """The user part of a share link, and its parameters."""
        ...

    def client_outbound(self, user: str, host: str, port: int, params: Mapping[str, str]) -> dict[str, Any]:
        """The client's outbound for such a link, without its stream settings."""
        ...


class Transport(Protocol):
    """What one transport knows about itself."""

    names: tuple[str, ...]
    """As in Xray's JSON, the modern one first."""
    link_type: str
    """`type` in share links."""
    settings_keys: tuple[str, ...]
    """Where in `streamSettings` its settings lie, aliases too."""

    def lint(self, stream: Mapping[str, Any]) -> Iterator[Problem]:
        """What is wrong with its part of the stream settings."""
        ...

    def link_params(self, stream: Mapping[str, Any]) -> dict[str, str]:
        """Its parameters in a share link."""
        ...

    def client_settings(self, params: Mapping[str, str]) -> dict[str, Any]:
        """The client's settings for such a link."""
        ...


class Security(Protocol):
    """What one kind of security knows about itself."""

    name: str
    settings_keys: tuple[str, ...]

    def lint(self, stream: Mapping[str, Any], transport: str) -> Iterator[Problem]:
        """What is wrong with its part of the stream settings."""
        ...

    def complete(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings with what only the server can know."""
        ...

    def render(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings as Xray wants them, without what is only for share links."""
        ...

    def link_params(self, settings: Mapping[str, Any], client: ClientBody) -> dict[str, str]:
        """Its parameters in this client's share link."""
        ...

    def client_settings(self, params: Mapping[str, str]) -> dict[str, Any]:
        """The client's settings for such a link."""
        ...


@cache
def inbound_protocols() -> Mapping[str, InboundProtocol]:
    """By name."""
    return {each.name: each for each in cast("Iterator[InboundProtocol]", _found("inbounds", "PROTOCOL"))}


@cache
def transports() -> Mapping[str, Transport]:
    """By every name they have in Xray's JSON."""
    found = cast("Iterator[Transport]", _found("transports", "TRANSPORT"))
    return {name: each for each in found for name in each.names}


@cache
def securities() -> Mapping[str, Security]:
    """By name."""
    return {each.name: each for each in cast("Iterator[Security]", _found("security", "SECURITY"))}


def find_protocol(body: InboundBody) -> InboundProtocol | None:
    """The inbound's protocol, or None when we do not speak it."""
    return inbound_protocols().get(body.protocol)


def transport_name(stream: Mapping[str, Any]) -> str:
    """The name of the transport in the stream settings; Xray's default is raw."""
    return str(stream.get("network") or stream.get("method") or "raw")


def security_name(stream: Mapping[str, Any]) -> str:
    """The name of the security in the stream settings; Xray's default is none."""
    return str(stream.get("security") or "none")


def find_transport(stream: Mapping[str, Any]) -> Transport | None:
    """The transport, or None when we do not speak it."""
    return transports().get(transport_name(stream))


def find_security(stream: Mapping[str, Any]) -> Security | None:
    """The security, or None when we do not speak it."""
    return securities().get(security_name(stream))


def settings_of(stream: Mapping[str, Any], keys: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The key under which the settings lie (the first of `keys` when none does), and the settings."""
    for key in keys:
        if key in stream:
            return key, as_object(stream[key])
    return (keys[0] if keys else ""), {}


def _found(package: str, constant: str) -> Iterator[object]:
    parent = import_module(f"xfleet_xraykit.{package}")
    for module in sorted(pkgutil.iter_modules(parent.__path__), key=lambda each: each.name):
        yield getattr(import_module(f"{parent.__name__}.{module.name}"), constant)
