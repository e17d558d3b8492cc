"""An account as Xray's API carries it: a type and its few stable fields, by number.

Accounts of all protocols are flat messages of texts and numbers, so their wire form needs no generated code and a new
protocol brings its account in its own file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from sys import intern

_VARINT, _LENGTH = 0, 2
_FIXED = {1: 8, 5: 4}


@dataclass(frozen=True, slots=True)
class Account:
    """What a client proves itself with on an inbound."""

    type: str
    """Full protobuf name, such as `xray.proxy.vless.Account`."""
    fields: Mapping[int, str | int] = field(default_factory=dict[int, str | int], repr=False)
    """Every field that matters, also when it is empty."""

    def covers(self, running: "Account") -> bool:
        """Whether the running account is this one; fields that only Xray fills in do not count."""
        if self.type != running.type:
            return False
        return all(running.fields.get(number, type(value)()) == value for number, value in self.fields.items())

    def encode(self) -> bytes:
        """Its protobuf bytes."""
        out = bytearray()
        for number, value in sorted(self.fields.items()):
            if isinstance(value, int):
                if value:
                    out += _varint(number << 3 | _VARINT) + _varint(value)
            elif value:
                data = value.encode()
                out += _varint(number << 3 | _LENGTH) + _varint(len(data)) + data
        return bytes(out)


def decode_account(kind: str, data: bytes) -> Account:
    """The account in these bytes; fields that are neither text nor number are left out. Raises ValueError."""
    fields: dict[int, str | int] = {}
    for number, value in _fields(data):
        if isinstance(value, int):
            fields[number] = value
        else:
            try:
                fields[number] = value.decode()
            except UnicodeDecodeError:
                continue
    return Account(intern(kind), fields)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:  # noqa: PLR2004  seven bits a byte
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        wire = key & 7
        if wire == _VARINT:
            value, at = _read_varint(data, at)
            yield key >> 3, value
        elif wire == _LENGTH:
            size, at = _read_varint(data, at)
            if at + size > len(data):
                raise ValueError("The account is cut short.")
            yield key >> 3, data[at : at + size]
            at += size
        elif wire in _FIXED:
            at += _FIXED[wire]
        else:
            raise ValueError("The account is not protobuf.")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:  # noqa: PLR2004  the last byte has no high bit
            return value, at
        shift += 7
    raise ValueError("The account is cut short.")
