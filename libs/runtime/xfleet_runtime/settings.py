"""Settings: one msgspec Struct per service, filled from command line, environment and a TOML file, in that order.

A field `panel_port` is `XFLEET_PANEL_PORT` in the environment and `panel_port` in the file. Unknown names refuse to
start, because a misspelt setting is a setting that silently does nothing.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from xfleet_runtime.errors import Unusable

PREFIX = "XFLEET_"
S = TypeVar("S", bound=msgspec.Struct)


def load_settings(
    kind: type[S],
    given: Mapping[str, Any],
    *,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
    others: frozenset[str] = frozenset(),
) -> S:
    """The settings of this kind; `others` are names in the environment that belong to sibling services.

    Raises `Unusable` naming the setting and where it came from.
    """
    names = {field.name for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for name, value in _from_file(file).items():
        if name not in names | others:
            raise Unusable(f"Unknown setting {name!r} in {file}. Known: {', '.join(sorted(names))}.")
        values[name] = value
    for variable, value in (os.environ if environment is None else environment).items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in names | others:
            raise Unusable(f"Unknown setting {variable} in the environment. Known: {_variables(names)}.")
        values[name] = value
    values.update({name: value for name, value in given.items() if value is not None})
    try:
        return msgspec.convert({k: v for k, v in values.items() if k in names}, kind, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise Unusable(f"A setting has the wrong form: {error}.") from error


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Unusable(f"Cannot read the settings file {file}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Unusable(f"The settings file {file} is not TOML: {error}.") from error


def _variables(names: set[str]) -> str:
    return ", ".join(sorted(PREFIX + name.upper() for name in names))


def _decode(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value).expanduser()
    raise NotImplementedError(kind)
