"""Our few messages against the descriptors of the Xray we ship with, asked by reflection."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from xfleet_xraykit import pb
from xfleet_xraykit.accounts import _fields
from xfleet_xraykit.launcher import WheelLauncher
from xfleet_xraykit.process import stop
from xfleet_xraykit.protocols import inbound_protocols
from xfleet_xraykit.render import render_config
from xfleet_xraykit.state import State

pytestmark = pytest.mark.real_xray
FILES = (
    "app/stats/command/command.proto",
    "app/proxyman/command/command.proto",
    "app/router/command/command.proto",
    "app/log/command/config.proto",
    "app/proxyman/config.proto",
    "app/router/config.proto",
    "core/config.proto",
)
OUR_OWN = {"xray.app.proxyman.command.Empty", "xray.app.router.command.Empty"}
CARRIED_AS_BYTES = {FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.TYPE_BYTES}


def _asked(stream: grpc.StreamStreamMultiCallable, names: list[str], key: int) -> Iterator[FileDescriptorProto]:
    requests = [bytes([key << 3 | 2, len(name)]) + name.encode() for name in names]
    for response in stream(iter(requests)):
        for number, value in _fields(response):
            if number == 4:
                assert isinstance(value, bytes)
                yield from (
                    FileDescriptorProto.FromString(each) for _, each in _fields(value) if isinstance(each, bytes)
                )


async def _live_messages(directory: Path) -> dict[str, DescriptorProto]:
    api_socket = directory / "reflection.sock"
    config = render_config(State(), api_socket=str(api_socket))
    config["api"]["services"].append("ReflectionService")
    started = await WheelLauncher().start(config, api_socket=api_socket, output=directory / "output")
    files: dict[str, FileDescriptorProto] = {}
    try:
        with grpc.insecure_channel(f"unix://{api_socket}") as channel:
            grpc.channel_ready_future(channel).result(10)
            stream = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
            accounts = [each.account_type for each in inbound_protocols().values()]
            accounts += [each.config_type for each in inbound_protocols().values()]
            for each in [*_asked(stream, list(FILES), 3), *_asked(stream, accounts, 4)]:
                files[each.name] = each
            while missing := {name for file in files.values() for name in file.dependency} - set(files):
                files |= {each.name: each for each in _asked(stream, sorted(missing), 3)}
    finally:
        await stop(started)
    return {name: message for file in files.values() for name, message in _named(file.package, list(file.message_type))}


def _named(package: str, messages: list[DescriptorProto]) -> Iterator[tuple[str, DescriptorProto]]:
    for message in messages:
        yield f"{package}.{message.name}", message
        yield from _named(f"{package}.{message.name}", list(message.nested_type))


def _our_messages() -> Iterator[Descriptor]:
    for module in pkgutil.iter_modules(pb.__path__):
        descriptor: FileDescriptor = importlib.import_module(f"{pb.__name__}.{module.name}").DESCRIPTOR
        yield from descriptor.message_types_by_name.values()


def _same(ours: FieldDescriptor, theirs: FieldDescriptorProto) -> bool:
    if ours.is_repeated != (theirs.label == FieldDescriptorProto.LABEL_REPEATED):
        return False
    if ours.type == FieldDescriptor.TYPE_MESSAGE and not ours.message_type.GetOptions().map_entry:
        return f".{ours.message_type.full_name}" == theirs.type_name
    return ours.type == theirs.type or {ours.type, theirs.type} == CARRIED_AS_BYTES


async def test_every_message_we_send_has_the_fields_of_the_xray_we_ship_with(short_dir: Path) -> None:
    live = await _live_messages(short_dir)
    compared = 0
    for message in _our_messages():
        if message.full_name in OUR_OWN:
            continue
        theirs = {field.name: field for field in live[message.full_name].field}
        for field in message.fields:
            assert field.name in theirs, f"{message.full_name}.{field.name} is gone"
            assert field.number == theirs[field.name].number, f"{message.full_name}.{field.name} was renumbered"
            assert _same(field, theirs[field.name]), f"{message.full_name}.{field.name} changed its type"
            compared += 1
    assert compared > 60


async def test_every_protocols_account_and_settings_exist_in_the_xray_we_ship_with(short_dir: Path) -> None:
    live = await _live_messages(short_dir)
    for protocol in inbound_protocols().values():
        assert protocol.account_type in live
        assert protocol.config_type in live
