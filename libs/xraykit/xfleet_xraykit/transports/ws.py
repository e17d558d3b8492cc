"""WebSocket: what passes through reverse proxies and CDNs."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from xfleet_xraykit.problems import Problem, as_object, unknown_keys, wrong_type
from xfleet_xraykit.protocols import settings_of

_KEYS = frozenset({"acceptProxyProtocol", "path", "host", "headers", "heartbeatPeriod"})


class WebSocket:
    """The transport's part of everything."""

    names = ("ws", "websocket")
    link_type = "ws"
    settings_keys = ("wsSettings",)

    def lint(self, stream: Mapping[str, Any]) -> Iterator[Problem]:
        """What is wrong with the settings."""
        _, settings = settings_of(stream, self.settings_keys)
        at = "stream_settings.wsSettings"
        yield from unknown_keys(settings, _KEYS, at)
        path = settings.get("path", "/")
        if not isinstance(path, str) or not path.startswith("/"):
            yield Problem(f"{at}.path", "path_needs_slash", "The path must begin with a slash.")
        elif any(not value.isdigit() for key, value in _query(path) if key == "ed"):
            yield Problem(f"{at}.path", "bad_early_data", "?ed= in the path must be a number of bytes.")
        for key, kind, noun in (
            ("host", str, "text"),
            ("headers", dict, "an object"),
            ("heartbeatPeriod", int, "seconds"),
        ):
            if key in settings:
                yield from wrong_type(settings[key], kind, f"{at}.{key}", noun)

    def link_params(self, stream: Mapping[str, Any]) -> dict[str, str]:
        """Path, and the host when one is wanted."""
        _, settings = settings_of(stream, self.settings_keys)
        headers = as_object(settings.get("headers"))
        params = {"path": str(settings.get("path") or "/")}
        host = settings.get("host") or headers.get("Host") or headers.get("host")
        if host:
            params["host"] = str(host)
        return params

    def client_settings(self, params: Mapping[str, str]) -> dict[str, Any]:
        """The client's settings for such a link."""
        settings: dict[str, Any] = {"path": params.get("path", "/")}
        if params.get("host"):
            settings["host"] = params["host"]
        return settings


def _query(path: str) -> list[tuple[str, str]]:
    return parse_qsl(path.partition("?")[2], keep_blank_values=True)


TRANSPORT = WebSocket()
