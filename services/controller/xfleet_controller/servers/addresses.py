"""What may stand as a server's address in links: a host name or an IP address, without port and path."""

import re
from ipaddress import AddressValueError, IPv6Address, ip_address

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}$)(?:{_LABEL}\.)*{_LABEL}\.?")
_DIGITS_LAST = re.compile(r"(?:.*\.)?[0-9]+\.?")


def is_address(text: str) -> bool:
    """Whether clients can be sent here."""
    if text.startswith("[") or ":" in text:
        bare = text.removeprefix("[").removesuffix("]") if text.startswith("[") and text.endswith("]") else text
        try:
            return IPv6Address(bare).scope_id is None
        except AddressValueError:
            return False
    if _DIGITS_LAST.fullmatch(text):
        try:
            ip_address(text)
        except ValueError:
            return False
        return True
    return _NAME.fullmatch(text) is not None


def is_private(host: str) -> bool:
    """Whether a host is this machine or a private network's."""
    if host == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_private or address.is_loopback or address.is_link_local


def is_ip(text: str) -> bool:
    """Whether this is an IP address rather than a name."""
    try:
        ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
