"""REALITY: a handshake that is another site's own, with an x25519 key instead of a certificate."""

import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from ipaddress import ip_address
from typing import Any

from xfleet_contracts.desired_state import ClientBody
from xfleet_xraykit.keys import new_reality_pair, new_short_id, reality_public_key
from xfleet_xraykit.problems import Problem, as_list, as_object, unknown_keys, wrong_type

_KEYS = frozenset({
    "show", "target", "dest", "type", "xver", "serverNames", "privateKey", "minClientVer", "maxClientVer",
    "maxTimeDiff", "maxTimediff", "shortIds", "mldsa65Seed", "masterKeyLog", "limitFallbackUpload",
    "limitFallbackDownload", "settings",
})  # fmt: skip
_LINK_KEYS = frozenset({"publicKey", "fingerprint", "serverName", "spiderX", "mldsa65Verify"})
_TRANSPORTS = frozenset({"raw", "tcp", "grpc", "xhttp", "splithttp"})
_SHORT_ID = re.compile(r"(?:[0-9a-f]{2}){0,8}")
_MAX_PORT = 65535
_AT = "stream_settings.realitySettings"
DEFAULT_FINGERPRINT = "chrome"


class Reality:
    """The security's part of everything."""

    name = "reality"
    settings_keys = ("realitySettings",)

    def lint(self, stream: Mapping[str, Any], transport: str) -> Iterator[Problem]:
        """What is wrong with the settings."""
        if transport not in _TRANSPORTS:
            yield Problem(
                "stream_settings.security", "reality_transport", "REALITY works over raw, gRPC and XHTTP only."
            )
        settings = as_object(stream.get("realitySettings"))
        yield from unknown_keys(settings, _KEYS, _AT)
        yield from unknown_keys(as_object(settings.get("settings")), _LINK_KEYS, f"{_AT}.settings")
        for key in ("serverNames", "shortIds"):
            if settings.get(key):
                yield from wrong_type(settings[key], list, f"{_AT}.{key}", "a list")
        yield from _lint_target(settings)
        yield from _lint_names(settings)
        yield from _lint_short_ids(settings)
        try:
            reality_public_key(str(settings.get("privateKey") or ""))
        except ValueError:
            yield Problem(f"{_AT}.privateKey", "bad_private_key", "The private key must be 32 bytes of base64url.")
        if settings.get("xver", 0) not in (0, 1, 2):
            yield Problem(f"{_AT}.xver", "bad_xver", "xver is 0, 1 or 2.")

    def complete(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings with a key, a short id, and the target's own name when none is given."""
        made = dict(settings)
        if not made.get("privateKey"):
            made["privateKey"] = new_reality_pair().private_key
        if not made.get("shortIds"):
            made["shortIds"] = [new_short_id()]
        host = _target(made).rpartition(":")[0]
        if not made.get("serverNames") and host and not _is_ip(host):
            made["serverNames"] = [host]
        return made

    def render(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings without what only links need."""
        return {key: value for key, value in settings.items() if key != "settings"}

    def link_params(self, settings: Mapping[str, Any], client: ClientBody) -> dict[str, str]:
        """What a client needs; the name and short id it gets are always the same ones."""
        extra = as_object(settings.get("settings"))
        names = [str(name) for name in as_list(settings.get("serverNames")) if name]
        short_ids = [str(each) for each in as_list(settings.get("shortIds"))]
        private_key = str(settings.get("privateKey") or "")
        seed = str(extra.get("spiderX") or private_key)
        params = {
            "pbk": reality_public_key(private_key),
            "fp": str(extra.get("fingerprint") or DEFAULT_FINGERPRINT),
            "sni": str(extra.get("serverName") or (names[client.client % len(names)] if names else "")),
            "sid": short_ids[client.client % len(short_ids)] if short_ids else "",
            "spx": "/" + sha256(f"{seed}|{client.client}".encode()).hexdigest()[:15],
            "pqv": str(extra.get("mldsa65Verify") or ""),
        }
        return {key: value for key, value in params.items() if value}

    def client_settings(self, params: Mapping[str, str]) -> dict[str, Any]:
        """The client's settings for such a link."""
        settings = {
            "serverName": params.get("sni", ""),
            "password": params.get("pbk", ""),
            "shortId": params.get("sid", ""),
            "fingerprint": params.get("fp", DEFAULT_FINGERPRINT),
            "spiderX": params.get("spx", "/"),
        }
        return settings | ({"mldsa65Verify": params["pqv"]} if params.get("pqv") else {})


def _target(settings: Mapping[str, Any]) -> str:
    return str(settings.get("target") or settings.get("dest") or "")


def _lint_target(settings: Mapping[str, Any]) -> Iterator[Problem]:
    target = _target(settings)
    if target.startswith(("/", "@")) or (target.isdigit() and 0 < int(target) <= _MAX_PORT):
        return
    host, _, port = target.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) <= _MAX_PORT:
        reason = "The target is the site whose handshake is shown: host:port."
        yield Problem(f"{_AT}.target", "bad_target", reason)


def _lint_names(settings: Mapping[str, Any]) -> Iterator[Problem]:
    names = as_list(settings.get("serverNames"))
    if not names:
        yield Problem(f"{_AT}.serverNames", "server_names_missing", "At least one server name is needed.")
    for index, name in enumerate(names):
        if not isinstance(name, str) or "*" in name or any(char.isspace() for char in name):
            reason = "A server name is a plain domain: wildcards and spaces never match."
            yield Problem(f"{_AT}.serverNames[{index}]", "bad_server_name", reason)


def _lint_short_ids(settings: Mapping[str, Any]) -> Iterator[Problem]:
    short_ids = as_list(settings.get("shortIds"))
    if not short_ids:
        yield Problem(f"{_AT}.shortIds", "short_ids_missing", "At least one short id is needed; it may be empty.")
    for index, short_id in enumerate(short_ids):
        if not isinstance(short_id, str) or not _SHORT_ID.fullmatch(short_id):
            reason = "A short id has an even number of hex digits, at most 16, in lower case."
            yield Problem(f"{_AT}.shortIds[{index}]", "bad_short_id", reason)


def _is_ip(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


SECURITY = Reality()
