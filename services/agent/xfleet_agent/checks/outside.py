"""Checks of what is around the machine: a site that Reality may borrow, a port that an inbound may take."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Mapping

from xfleet_agent.checks.outcome import Outcome

MAX_PORT = 65535
CLOSE_TIMEOUT_S = 0.5
_FAMILIES = ((socket.AF_INET, ""), (socket.AF_INET6, "::"))
_KINDS = ((socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP"))
_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


class _HungUpError(ConnectionError):
    """The connection broke while hands were shaken."""


def split_target(target: str) -> tuple[str, int] | None:
    """Host and port of `host:port` or `[v6]:port`; None when it is neither."""
    host, _, port = target.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) <= MAX_PORT or any(each.isspace() for each in host):
        return None
    return host, int(port)


async def check_tls(target: str) -> Outcome:
    """Whether TLS 1.3 with X25519 and h2 is spoken there."""
    place = split_target(target)
    if place is None:
        return Outcome("failed", "This is not host:port.")
    try:
        protocol = await _shake_hands(*place, verify=True)
    except ssl.SSLCertVerificationError as error:
        return await _without_trust(place, error.verify_message or "it is not trusted")
    except (OSError, ValueError, UnicodeError) as error:
        return Outcome("failed", _words(error))
    if protocol != "h2":
        return Outcome("failed", "TLS 1.3 with X25519, but h2 is not spoken there.")
    return Outcome("ok", "TLS 1.3 with X25519 and h2.")


async def _without_trust(place: tuple[str, int], reason: str) -> Outcome:
    try:
        protocol = await _shake_hands(*place, verify=False)
    except (OSError, ValueError, UnicodeError) as error:
        return Outcome("failed", _words(error))
    spoken = "TLS 1.3 with X25519 and h2" if protocol == "h2" else "TLS 1.3 with X25519, without h2"
    return Outcome("warning" if protocol == "h2" else "failed", f"{spoken}, but its certificate is not good: {reason}.")


async def _shake_hands(host: str, port: int, *, verify: bool) -> str | None:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_ecdh_curve("X25519")
    context.set_alpn_protocols(["h2", "http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection(host, port)
    try:
        await _start_tls(writer, context, host)
        return writer.get_extra_info("ssl_object").selected_alpn_protocol()
    finally:
        writer.transport.abort()


async def _start_tls(writer: asyncio.StreamWriter, context: ssl.SSLContext, host: str) -> None:
    try:
        await writer.start_tls(context, server_hostname=host)
    except ssl.SSLError:
        raise
    except OSError as error:  # some sites say nothing to what they do not speak
        raise _HungUpError(str(error) or "the site hung up") from error


def _words(error: Exception) -> str:
    if isinstance(error, (ssl.SSLError, _HungUpError)):
        reason: str = getattr(error, "reason", None) or str(error)
        return f"No TLS 1.3 with X25519 there: {reason.replace('_', ' ').lower()}."
    if isinstance(error, socket.gaierror):
        return f"The name is not known: {error.strerror}."
    return f"Cannot connect: {str(error) or 'the connection was cut'}."


def check_port(port: int, inbounds: Mapping[int, str]) -> Outcome:
    """Whether an inbound can listen there; `inbounds` names those of this server by port."""
    if not 0 < port <= MAX_PORT:
        return Outcome("failed", f"A port is 1 to {MAX_PORT}.")
    if port in inbounds:
        return Outcome("warning", f"Inbound {inbounds[port]} of this server listens there.")
    for family, address in _FAMILIES:
        for kind, name in _KINDS:
            reason = _refusal(family, address, kind, port)
            if reason:
                return Outcome("failed", f"{name}: {reason}")
    return Outcome("ok", "Free for TCP and UDP.")


def _refusal(family: socket.AddressFamily, address: str, kind: socket.SocketKind, port: int) -> str:
    """Why nobody can listen there now; empty when one can."""
    try:
        with socket.socket(family, kind) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            if kind == socket.SOCK_STREAM:
                probe.listen(1)
    except OSError as error:
        if family == socket.AF_INET6 and error.errno in _NO_IPV6:
            return ""
        return {
            errno.EADDRINUSE: "another program listens there.",
            errno.EACCES: "the agent has no right to ports this low.",
        }.get(error.errno or 0, f"{error.strerror}.")
    return ""
