"""Today's code reads every message ever released. Golden files are never edited; a new message gets a new one."""

import json
from typing import Any

import pytest

from contract.samples import GOLDEN, message_types, sample
from xfleet_contracts.codec import canonical, decode, encode

TYPES = message_types()


def test_every_message_has_a_golden_sample() -> None:
    missing = sorted(name for name in TYPES if not (GOLDEN / f"{name}.json").exists())
    assert not missing, f"run: python tests/contract/samples.py ({', '.join(missing)})"


def test_no_message_that_was_released_is_gone() -> None:
    assert sorted(file.stem for file in GOLDEN.glob("*.json") if file.stem not in TYPES) == []


@pytest.mark.parametrize("name", sorted(file.stem for file in GOLDEN.glob("*.json")))
def test_a_released_message_is_read_and_nothing_of_it_is_lost(name: str) -> None:
    released = (GOLDEN / f"{name}.json").read_bytes()
    message = decode(released, TYPES[name])
    assert _covers(json.loads(canonical(message)), json.loads(released))


@pytest.mark.parametrize("name", sorted(TYPES))
def test_a_message_survives_the_wire_and_ignores_what_it_does_not_know(name: str) -> None:
    message = sample(TYPES[name])
    assert canonical(decode(encode(message), TYPES[name])) == canonical(message)
    extended = canonical(json.loads(encode(message)) | {"field_of_a_later_release": [1]})
    assert canonical(decode(extended, TYPES[name])) == canonical(message)


def _covers(now: Any, released: Any) -> bool:
    if isinstance(released, dict):
        return all(key in now and _covers(now[key], value) for key, value in released.items())
    if isinstance(released, list):
        return len(now) >= len(released) and all(_covers(a, b) for a, b in zip(now, released, strict=False))
    return now == released
