"""What an order's body may hold, checked before anybody is asked: every fault with its field."""

import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from xfleet_contracts.care import CertificateGenerate, CertificateName, ChecksRun, StateRead
from xfleet_contracts.commands import TrafficRead
from xfleet_contracts.installs import BUNDLED, AgentUpdate, Download, GeoFilesUpdate, XrayInstall
from xfleet_contracts.logs import LOG_KINDS, MAX_LINES, LogsRead
from xfleet_contracts.message import Message
from xfleet_controller.errors import FieldError, Invalid
from xfleet_controller.texts import has_controls

MAX_URL, MAX_NAME, MAX_TEXT = 2000, 253, 200
MAX_GEO_FILES, MAX_DOMAINS, MAX_WHEELS = 8, 20, 40
MAX_TARGETS, MAX_PORTS, MAX_PORT = 8, 32, 65535
MAX_DAYS = 3650
MAX_PROBATION_S = 600
MAX_PAGE = 1000
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+_-]{0,49}")
_GEO_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}\.dat")
_HOST = re.compile(
    r"(?:\*\.)?(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
)
_CERTIFICATE = re.compile(r"[A-Za-z0-9_*:][A-Za-z0-9._*:-]{0,252}")
Errors = list[FieldError]


def check_body(body: Message) -> None:
    """Raises `Invalid` for a body no server could do anything with."""
    check = _CHECKS.get(type(body))
    errors = check(body) if check is not None else []
    if errors:
        raise Invalid(errors)


def _download(file: Download, field: str) -> Errors:
    errors: Errors = []
    try:
        parts = urlsplit(file.url)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        has_password = bool(parts.username or parts.password)
    except ValueError:
        is_url = has_password = False
    if not is_url or len(file.url) > MAX_URL or has_controls(file.url) or " " in file.url:
        errors.append(FieldError(f"{field}.url", "Give an address that begins with http:// or https://.", "bad_url"))
    elif has_password:
        errors.append(FieldError(f"{field}.url", "An address with a password in it is not taken.", "bad_url"))
    if not _SHA256.fullmatch(file.sha256):
        errors.append(FieldError(f"{field}.sha256", "A SHA-256 has 64 hexadecimal digits.", "bad_sha256"))
    return errors


def _version(version: str, *, bundled: bool = False) -> Errors:
    if _VERSION.fullmatch(version) or (bundled and version == BUNDLED):
        return []
    also = f", or `{BUNDLED}`" if bundled else ""
    return [FieldError("version", f"Give a version such as 26.2.6{also}.", "bad_version")]


def _xray_install(body: XrayInstall) -> Errors:
    errors = _version(body.version, bundled=True)
    return errors if body.archive is None else [*errors, *_download(body.archive, "archive")]


def _geo_files(body: GeoFilesUpdate) -> Errors:
    names = [file.name for file in body.files]
    if not 0 < len(names) <= MAX_GEO_FILES or len(set(names)) != len(names):
        return [FieldError("files", f"Give 1 to {MAX_GEO_FILES} different files.", "bad_files")]
    errors: Errors = []
    for index, file in enumerate(body.files):
        if not _GEO_FILE.fullmatch(file.name):
            field = f"files.{index}.name"
            errors.append(FieldError(field, "Letters, digits, - and _, ending in .dat.", "bad_name"))
        errors += _download(file.file, f"files.{index}.file")
    return errors


def _agent_update(body: AgentUpdate) -> Errors:
    errors = [*_version(body.version), *_download(body.wheel, "wheel")]
    if len(body.wheelhouse) > MAX_WHEELS:
        errors.append(FieldError("wheelhouse", f"At most {MAX_WHEELS} wheels.", "too_many"))
    for index, wheel in enumerate(body.wheelhouse[:MAX_WHEELS]):
        errors += _download(wheel, f"wheelhouse.{index}")
    if not 0 < body.probation_s <= MAX_PROBATION_S:
        errors.append(FieldError("probation_s", f"1 to {MAX_PROBATION_S} seconds."))
    return errors


def _certificate(body: CertificateGenerate) -> Errors:
    errors: Errors = []
    if not 0 < len(body.domains) <= MAX_DOMAINS or not all(map(_is_host, body.domains)):
        reason = f"Give 1 to {MAX_DOMAINS} host names or IP addresses."
        errors.append(FieldError("domains", reason, "bad_domain"))
    if not 0 < body.days_count <= MAX_DAYS:
        errors.append(FieldError("days_count", f"1 to {MAX_DAYS} days."))
    return errors


def _certificate_name(body: CertificateName) -> Errors:
    if _CERTIFICATE.fullmatch(body.name):
        return []
    return [FieldError("name", "Give a name as the list shows it.", "bad_name")]


def _checks(body: ChecksRun) -> Errors:
    errors: Errors = []
    if len(body.tls_targets) > MAX_TARGETS or not all(map(_is_target, body.tls_targets)):
        reason = f"At most {MAX_TARGETS} targets such as www.example.com:443."
        errors.append(FieldError("tls_targets", reason, "bad_target"))
    if len(body.free_ports) > MAX_PORTS or not all(0 < port <= MAX_PORT for port in body.free_ports):
        errors.append(FieldError("free_ports", f"At most {MAX_PORTS} ports from 1 to {MAX_PORT}.", "bad_port"))
    return errors


def _logs(body: LogsRead) -> Errors:
    errors: Errors = []
    if not is_log(body.log):
        reason = f"One of {', '.join(LOG_KINDS)}, or an absolute path the server lists."
        errors.append(FieldError("log", reason, "log_not_allowed"))
    if not 0 < body.lines_count <= MAX_LINES:
        errors.append(FieldError("lines_count", f"1 to {MAX_LINES} lines."))
    if not is_filter(body.contains):
        errors.append(FieldError("contains", f"At most {MAX_TEXT} characters, no control characters."))
    return errors


def is_log(log: str) -> bool:
    """Whether this can name a log; whether it may be read the server decides."""
    return log in LOG_KINDS or (log.startswith("/") and len(log) <= MAX_TEXT and not has_controls(log))


def is_filter(contains: str) -> bool:
    """Whether lines can be filtered by this text."""
    return len(contains) <= MAX_TEXT and not has_controls(contains)


def _traffic(body: TrafficRead) -> Errors:
    errors: Errors = []
    if not 0 < body.limit <= MAX_PAGE:
        errors.append(FieldError("limit", f"1 to {MAX_PAGE} rows."))
    if not 0 <= body.offset < 2**53 or len(body.clients) > MAX_PAGE:
        errors.append(FieldError("offset", "A position in the list."))
    return errors


def _state(body: StateRead) -> Errors:
    return [] if 0 <= body.offset < 2**53 else [FieldError("offset", "A position in the list.")]


def _is_host(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return len(text) <= MAX_NAME and _HOST.fullmatch(text) is not None
    return True


def _is_target(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    return bool(colon) and port.isdecimal() and len(port) < 6 and 0 < int(port) <= MAX_PORT and _is_host(host)  # noqa: PLR2004


_CHECKS: dict[type[Any], Callable[[Any], Errors]] = {
    XrayInstall: _xray_install,
    GeoFilesUpdate: _geo_files,
    AgentUpdate: _agent_update,
    CertificateGenerate: _certificate,
    CertificateName: _certificate_name,
    ChecksRun: _checks,
    LogsRead: _logs,
    TrafficRead: _traffic,
    StateRead: _state,
}
