"""Figures as people read them: pure functions the templates use as filters.

Sizes count in 1024s and are written KB, MB, GB, as every panel of this field and every operator does; rates count
bits in 1000s, as network gear does.
"""

import math
from collections.abc import Sequence
from datetime import datetime

NOTHING = "–"
"""What stands where a figure is not known: never a frozen or a made-up number."""

_SIZE_UNITS = ("B", "KB", "MB", "GB", "TB", "PB", "EB")
_RATE_UNITS = ("bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s")
_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86400
_TEN = 10
_HUNDRED = 100
_WIRE_WORDS = {
    "vless": "VLESS",
    "vmess": "VMess",
    "trojan": "Trojan",
    "shadowsocks": "Shadowsocks",
    "socks": "SOCKS",
    "http": "HTTP",
    "raw": "TCP",
    "tcp": "TCP",
    "ws": "WebSocket",
    "websocket": "WebSocket",
    "grpc": "gRPC",
    "xhttp": "XHTTP",
    "httpupgrade": "HTTPUpgrade",
    "kcp": "mKCP",
    "mkcp": "mKCP",
    "reality": "Reality",
    "tls": "TLS",
}
_PERSIAN_DIGITS = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")


def _scaled(value: float, base: int, units: Sequence[str]) -> tuple[str, str]:
    """A value in the unit that leaves one to three digits before the point, with three digits in all."""
    power = 0
    while abs(value) >= base and power < len(units) - 1:
        value /= base
        power += 1
    if power == 0:
        return f"{value:.0f}", units[0]
    if round(value, 2) >= base and power < len(units) - 1:
        value, power = value / base, power + 1
    digits = 2 if abs(value) < _TEN else 1 if abs(value) < _HUNDRED else 0
    text = f"{value:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text), units[power]


def format_bytes(value: int | None) -> str:
    """A size: `0 B`, `1.5 MB`, `12.3 GB`."""
    if value is None:
        return NOTHING
    return " ".join(_scaled(value, 1024, _SIZE_UNITS))


def format_rate(bytes_per_s: float | None) -> str:
    """A network rate in bits: `8 kbit/s` for 1000 bytes a second."""
    if bytes_per_s is None:
        return NOTHING
    return " ".join(_scaled(bytes_per_s * 8, 1000, _RATE_UNITS))


def format_number(value: int | None) -> str:
    """A count with its thousands set apart: `12,345`."""
    return NOTHING if value is None else f"{value:,}"


def format_percent(value: float | None) -> str:
    """A share of a hundred: `42%`; something between 0 and 1 says so."""
    if value is None:
        return NOTHING
    if 0 < value < 1:
        return "<1%"
    return f"{math.floor(value + 0.5)}%"


def format_duration(seconds: float | None) -> str:
    """A length of time in its two largest units: `3 d 4 h`, `5 min 10 s`, `40 s`."""
    if seconds is None:
        return NOTHING
    whole = max(0, int(seconds))
    days, rest = divmod(whole, _DAY_S)
    hours, rest = divmod(rest, _HOUR_S)
    minutes, secs = divmod(rest, _MINUTE_S)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (secs, "s")]
    first = next((index for index, (count, _) in enumerate(parts) if count), len(parts) - 1)
    shown = [f"{count} {unit}" for count, unit in parts[first : first + 2] if count]
    return " ".join(shown) or "0 s"


def _coarse(seconds: float) -> str:
    """A length of time in its largest unit alone."""
    for size_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= size_s:
            return f"{int(seconds // size_s)} {unit}"
    return f"{int(seconds)} s"


def format_ago(at: datetime | None, now: datetime) -> str:
    """How long ago a moment was: `now`, `12 s ago`, `3 d ago`."""
    if at is None:
        return "never"
    seconds = (now - at).total_seconds()
    return "now" if seconds < 2 else f"{_coarse(seconds)} ago"  # noqa: PLR2004  # a beat's jitter is "now"


def format_until(at: datetime | None, now: datetime) -> str:
    """How far off a moment is: `in 3 d`, or `2 h ago` once past."""
    if at is None:
        return NOTHING
    seconds = (at - now).total_seconds()
    return f"in {_coarse(seconds)}" if seconds >= 0 else f"{_coarse(-seconds)} ago"


def format_moment(at: datetime | None, *, seconds: bool = False) -> str:
    """A moment to the minute or the second, in UTC: `2026-11-22 14:05 UTC`."""
    return NOTHING if at is None else at.strftime(f"%Y-%m-%d %H:%M{':%S' if seconds else ''} UTC")


def format_wire(word: str) -> str:
    """A protocol, transport or security of Xray as people write it; a word nobody knows stays as it is."""
    return _WIRE_WORDS.get(word, word)


def spark_points(values: Sequence[float], beside: Sequence[float] = (), width: int = 100, height: int = 28) -> str:
    """The `points` of an SVG polyline that fits values into a box, zero at the bottom.

    `beside` is the other line of the same picture: both share one scale.
    """
    if not values:
        return ""
    top = max(*values, *beside, 1e-9)
    step = width / max(1, len(values) - 1)
    margin = 1.5
    room = height - 2 * margin
    return " ".join(
        f"{index * step:.1f},{margin + room * (1 - max(0.0, value) / top):.1f}" for index, value in enumerate(values)
    )


def localize_digits(text: str, language: str) -> str:
    """The text with the digits of its language: Persian ones for `fa`, unchanged elsewhere."""
    return text.translate(_PERSIAN_DIGITS) if language == "fa" else text
