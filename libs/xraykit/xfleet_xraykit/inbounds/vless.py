"""VLESS: a UUID per client, with XTLS Vision over raw TLS or REALITY."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xfleet_contracts.desired_state import ClientBody, InboundBody
from xfleet_xraykit.accounts import Account
from xfleet_xraykit.keys import is_uuid, new_uuid
from xfleet_xraykit.problems import Problem, as_list, unknown_keys
from xfleet_xraykit.protocols import security_name, transport_name

VISION = "xtls-rprx-vision"
_FLOWS = frozenset({"", VISION})
_RAW = frozenset({"raw", "tcp"})
_VISION_SECURITIES = frozenset({"tls", "reality"})
_SETTINGS_KEYS = frozenset({"clients", "decryption", "encryption", "fallbacks", "selectedAuth", "testseed"})
_ONLY_FOR_LINKS = frozenset({"encryption", "selectedAuth"})
_ENCRYPTED_PREFIX = "mlkem768x25519plus."


class Vless:
    """The protocol's part of everything."""

    name = "vless"
    account_type = "xray.proxy.vless.Account"
    config_type = "xray.proxy.vless.inbound.Config"
    credential = "uuid"

    def lint_inbound(self, body: InboundBody) -> Iterator[Problem]:
        """What is wrong with the settings."""
        yield from unknown_keys(body.settings, _SETTINGS_KEYS, "settings")
        decryption = body.settings.get("decryption", "none")
        if decryption != "none" and not str(decryption).startswith(_ENCRYPTED_PREFIX):
            yield Problem("settings.decryption", "bad_decryption", 'decryption is "none" or a generated key.')
        if as_list(body.settings.get("fallbacks")) and transport_name(body.stream_settings) not in _RAW:
            yield Problem("settings.fallbacks", "fallbacks_need_raw", "Fallbacks work only over the raw transport.")

    def lint_client(self, client: ClientBody, inbound: InboundBody | None) -> Iterator[Problem]:
        """What is wrong with the client."""
        if not is_uuid(client.uuid):
            yield Problem("uuid", "bad_uuid", "The UUID must be a full one, in lower case with dashes.")
        if client.flow not in _FLOWS:
            yield Problem("flow", "unknown_flow", f"The flow must be empty or {VISION}.")
        elif client.flow and inbound is not None and not allows_vision(inbound.stream_settings):
            yield Problem("flow", "vision_needs_raw_tls", "Vision works only over raw with TLS or REALITY.")

    def complete(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings with `decryption`."""
        return {"decryption": "none"} | settings

    def new_credential(self, inbound: InboundBody) -> dict[str, str]:
        """A random UUID, and Vision where it works."""
        return {"uuid": new_uuid(), "flow": VISION if allows_vision(inbound.stream_settings) else ""}

    def render_settings(self, settings: Mapping[str, Any], users: Sequence[tuple[str, ClientBody]]) -> dict[str, Any]:
        """Xray's `settings` with these users."""
        kept = {key: value for key, value in settings.items() if key not in _ONLY_FOR_LINKS}
        clients = [{"id": client.uuid, "flow": client.flow, "email": email, "level": 0} for email, client in users]
        return {"decryption": "none"} | kept | {"clients": clients}

    def account(self, client: ClientBody, inbound: InboundBody) -> Account:  # noqa: ARG002  other protocols need it
        """Id and flow."""
        return Account(self.account_type, {1: client.uuid, 2: client.flow})

    def link(self, inbound: InboundBody, client: ClientBody) -> tuple[str, dict[str, str]]:
        """The UUID; `encryption` and `flow`."""
        params = {"encryption": str(inbound.settings.get("encryption") or "none")}
        if client.flow:
            params["flow"] = client.flow
        return client.uuid, params

    def client_outbound(self, user: str, host: str, port: int, params: Mapping[str, str]) -> dict[str, Any]:
        """The client's outbound, without its stream settings."""
        account = {"id": user, "encryption": params.get("encryption", "none"), "flow": params.get("flow", "")}
        return {"protocol": self.name, "settings": {"vnext": [{"address": host, "port": port, "users": [account]}]}}


def allows_vision(stream: Mapping[str, Any]) -> bool:
    """Whether XTLS Vision works over these stream settings."""
    return transport_name(stream) in _RAW and security_name(stream) in _VISION_SECURITIES


PROTOCOL = Vless()
