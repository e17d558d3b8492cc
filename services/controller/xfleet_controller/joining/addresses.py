"""Broker addresses as people type them, and what can be known about one without dialling it."""

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from xfleet_contracts.errors import Refusal
from xfleet_controller.servers.addresses import is_address

MAX_URLS = 8
DEFAULT_PORTS = {"tls": 4222, "wss": 443}


class BrokerAddressWrong(Refusal):
    """An address that can be none of a broker."""

    code = "broker_address_wrong"
    status = 422
    message = "Give the broker's address as tls://HOST:PORT or wss://HOST:PORT/path, or just its host."


class BrokerAddressLocal(Refusal):
    """An address that means another machine on every machine."""

    code = "broker_address_local"
    status = 422
    message = "Other machines cannot reach this address. Give the one under which they see this machine."


def checked_urls(texts: Sequence[str], *, default_port: int = DEFAULT_PORTS["tls"]) -> tuple[str, ...]:
    """The addresses in one form and order, each once. Raises `BrokerAddressWrong` or `BrokerAddressLocal`."""
    urls = tuple(dict.fromkeys(_checked(text.strip(), default_port) for text in texts if text.strip()))
    if len(urls) > MAX_URLS:
        raise BrokerAddressWrong(f"At most {MAX_URLS} addresses.", field="urls")
    return urls


def is_local(url: str) -> bool:
    """Whether only this machine means itself by that host: loopback, unspecified or link-local."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified or address.is_link_local


def is_private(url: str) -> bool:
    """Whether the host is an address of a private network: good inside it, unreachable from anywhere else."""
    try:
        return ipaddress.ip_address(urlsplit(url).hostname or "").is_private
    except ValueError:
        return False


def _checked(text: str, default_port: int) -> str:
    try:
        parts = urlsplit(text if "://" in text else f"tls://{_bracketed(text)}")
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise BrokerAddressWrong(field="urls", address=text[:200]) from error
    plain = parts.scheme in DEFAULT_PORTS and not (parts.username or parts.password or parts.query or parts.fragment)
    if not plain or not is_address(host) or port == 0 or (parts.scheme == "tls" and parts.path not in {"", "/"}):
        raise BrokerAddressWrong(field="urls", address=text[:200])
    shown = f"[{host}]" if ":" in host else host
    usual = default_port if parts.scheme == "tls" else DEFAULT_PORTS["wss"]
    url = f"{parts.scheme}://{shown}:{port or usual}{parts.path.rstrip('/')}"
    if is_local(url):
        raise BrokerAddressLocal(field="urls", address=url)
    return url


def _bracketed(text: str) -> str:
    """A bare IPv6 address in brackets; anything else as it is."""
    try:
        return f"[{text}]" if ipaddress.ip_address(text).version == 6 else text  # noqa: PLR2004
    except ValueError:
        return text
