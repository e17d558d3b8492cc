"""Raw: the protocol straight on TCP, optionally looking like HTTP/1.1."""

from collections.abc import Iterator, Mapping
from typing import Any

from xfleet_xraykit.problems import Problem, as_list, as_object, unknown_keys
from xfleet_xraykit.protocols import settings_of

_KEYS = frozenset({"acceptProxyProtocol", "header"})
_HEADER_KEYS = frozenset({"type", "request", "response"})
_HEADER_TYPES = frozenset({"none", "http"})


class Raw:
    """The transport's part of everything."""

    names = ("raw", "tcp")
    link_type = "tcp"
    settings_keys = ("rawSettings", "tcpSettings")

    def lint(self, stream: Mapping[str, Any]) -> Iterator[Problem]:
        """What is wrong with the settings."""
        key, settings = settings_of(stream, self.settings_keys)
        path = f"stream_settings.{key}"
        yield from unknown_keys(settings, _KEYS, path)
        header = as_object(settings.get("header"))
        yield from unknown_keys(header, _HEADER_KEYS, f"{path}.header")
        if str(header.get("type", "none")) not in _HEADER_TYPES:
            yield Problem(f"{path}.header.type", "unknown_header", 'The header is "none" or "http".')

    def link_params(self, stream: Mapping[str, Any]) -> dict[str, str]:
        """Nothing, or the HTTP look."""
        _, settings = settings_of(stream, self.settings_keys)
        header = as_object(settings.get("header"))
        if header.get("type") != "http":
            return {}
        request = as_object(header.get("request"))
        params = {"headerType": "http", "path": ",".join(map(str, as_list(request.get("path")))) or "/"}
        headers = as_object(request.get("headers"))
        host = headers.get("Host", headers.get("host"))
        hosts = [host] if isinstance(host, str) else as_list(host)
        if hosts:
            params["host"] = ",".join(map(str, hosts))
        return params

    def client_settings(self, params: Mapping[str, str]) -> dict[str, Any]:
        """The client's settings for such a link."""
        if params.get("headerType") != "http":
            return {}
        request: dict[str, Any] = {"path": params.get("path", "/").split(",")}
        if params.get("host"):
            request["headers"] = {"Host": params["host"].split(",")}
        return {"header": {"type": "http", "request": request}}


TRANSPORT = Raw()
