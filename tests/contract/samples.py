"""One sample per message, every field filled; run as a script, it writes golden files that are missing, never others.

python tests/contract/samples.py
"""

import importlib
import pkgutil
import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

import xfleet_contracts
from xfleet_contracts.codec import canonical
from xfleet_contracts.message import Message

GOLDEN = Path(__file__).parent / "golden"
TEXTS = {
    r"^[a-z0-9][a-z0-9_-]{0,62}$": "frankfurt-1",
}


def message_types() -> dict[str, type[Message]]:
    """Every message of the contracts by name."""
    for module in pkgutil.iter_modules(xfleet_contracts.__path__):
        importlib.import_module(f"xfleet_contracts.{module.name}")
    found: dict[str, type[Message]] = {}
    waiting = [Message]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            if kind.__module__.startswith("xfleet_contracts."):
                found[kind.__name__] = kind
            waiting.append(kind)
    return found


def sample(kind: type) -> Any:
    """A value of this type with nothing left at its default."""
    return msgspec.json.decode(canonical(_sample(inspect.type_info(kind))), type=kind)


def _sample(kind: inspect.Type) -> Any:  # noqa: PLR0911  one line per kind of value
    match kind:
        case inspect.StructType(fields=fields, array_like=array_like):
            values = {field.encode_name: _sample(field.type) for field in fields}
            return list(values.values()) if array_like else values
        case inspect.StrType(pattern=pattern):
            return TEXTS[pattern] if pattern else "text ☃"
        case inspect.IntType(ge=ge, lt=lt):
            return (lt - 1) if lt is not None and lt <= 2**53 else max(ge or 0, 7)
        case inspect.FloatType():
            return 12.5
        case inspect.BoolType():
            return True
        case inspect.BytesType():
            return "AAEC/w=="
        case inspect.LiteralType(values=values):
            return min(values)
        case inspect.UnionType(types=types):
            return _sample(next(each for each in types if not isinstance(each, inspect.NoneType)))
        case inspect.VarTupleType(item_type=item):
            return [_sample(item), _sample(item)]
        case inspect.DictType(value_type=value):
            return {"key": _sample(value)}
        case inspect.RawType() | inspect.AnyType():
            return {"port": 443}
        case inspect.Metadata(type=inner):
            return _sample(inner)
    raise AssertionError(f"no sample for {kind}")


def write_missing() -> list[Path]:
    """Writes the golden files that do not exist yet."""
    GOLDEN.mkdir(exist_ok=True)
    written = []
    for name, kind in message_types().items():
        file = GOLDEN / f"{name}.json"
        if not file.exists():
            file.write_bytes(canonical(sample(kind)) + b"\n")
            written.append(file)
    return written


if __name__ == "__main__":
    for written in write_missing():
        sys.stdout.write(f"{written}\n")
