"""Bytes to messages and back: limits, refusals that say where, redaction."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.samples import message_types, sample
from xfleet_contracts.codec import REDACTED, canonical, decode, encode, redact
from xfleet_contracts.commands import Command, Reply
from xfleet_contracts.desired_state import ClientBody, Entity, InboundBody
from xfleet_contracts.errors import ErrorBody, MessageMalformed, MessageTooLarge, RemoteRefusal
from xfleet_contracts.heartbeat import Heartbeat
from xfleet_contracts.message import MAX_MESSAGE_BYTES
from xfleet_contracts.receipt import Receipt


def test_nothing_over_the_limit_is_encoded_or_decoded() -> None:
    filler = "x" * MAX_MESSAGE_BYTES
    with pytest.raises(MessageTooLarge) as refused:
        encode(Receipt(epoch=filler, committed_through=1, digest=""))
    assert refused.value.details["limit_bytes"] == MAX_MESSAGE_BYTES
    with pytest.raises(MessageTooLarge):
        decode(b'{"epoch":"' + filler.encode() + b'"}', Receipt)


def test_exactly_the_limit_passes() -> None:
    frame = len(encode(Receipt(epoch="", committed_through=1, digest="")))
    data = encode(Receipt(epoch="x" * (MAX_MESSAGE_BYTES - frame), committed_through=1, digest=""))
    assert len(data) == MAX_MESSAGE_BYTES
    assert decode(data, Receipt).committed_through == 1


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "truncated"),
        (b"\xff\xfe", "malformed"),
        (b"[]", "Expected `object`"),
        (b'{"epoch":1,"committed_through":1,"digest":""}', "$.epoch"),
        (b'{"epoch":"e","committed_through":"1","digest":""}', "$.committed_through"),
        (b'{"epoch":"e","committed_through":1}', "digest"),
        (b"[" * 100_000, ""),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(data: bytes, says: str) -> None:
    with pytest.raises(MessageMalformed) as refused:
        decode(data, Receipt)
    assert says in refused.value.text
    assert refused.value.details["kind"] == "Receipt"


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_and_never_crash(data: bytes) -> None:
    for kind in (Heartbeat, Command, Reply):
        try:
            decode(data, kind)
        except MessageMalformed:
            continue


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=20))
def test_a_body_travels_byte_for_byte(value: object) -> None:
    body = msgspec.Raw(canonical({"value": value}))
    entity = decode(encode(Entity(kind="inbound", id="1", body=body)), Entity)
    assert bytes(entity.body) == bytes(body)


def test_marked_fields_are_redacted_at_any_depth() -> None:
    client = ClientBody(client=1, inbound=2, uuid="11111111-2222", password="hunter2")
    entity = Entity(kind="client", id="1.2", body=msgspec.Raw(encode(client)))
    shown = json.dumps(redact({"direct": client, "inside": [entity]}))
    assert "hunter2" not in shown
    assert REDACTED in shown


def test_an_empty_body_and_xrays_own_keys_are_handled() -> None:
    inbound = InboundBody(
        ref=1,
        port=443,
        protocol="vless",
        settings={"clients": [{"id": "secret-uuid"}]},
        stream_settings={
            "realitySettings": {"privateKey": "secret-key", "shortIds": ["ab"], "serverNames": ["a.example"]}
        },
    )
    shown = json.dumps(redact(inbound))
    assert "secret-uuid" not in shown
    assert "secret-key" not in shown
    assert "a.example" in shown
    assert redact(Entity(kind="inbound", id="1", body=msgspec.Raw(b"")))["body"] is None


def test_every_secret_field_of_every_message_is_redacted() -> None:
    for name, kind in message_types().items():
        message, shown = sample(kind), redact(sample(kind))
        for field in msgspec.structs.fields(kind):
            if "secret" in str(field.type) and getattr(message, field.name) not in (None, {}):
                assert REDACTED in json.dumps(shown[field.encode_name]), f"{name}.{field.name}"


def test_a_refusal_keeps_its_word_over_the_bus() -> None:
    body = ErrorBody(code="clock", message="Too old.", details={"now_ms": 5})
    reply = decode(encode(Reply(ok=False, error=body)), Reply)
    assert reply.error is not None
    assert RemoteRefusal(reply.error).body() == body
