from xfleet_xraykit.pb import net_pb2 as _net_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SniffingConfig(_message.Message):
    __slots__ = ("domains_excluded", "ips_excluded")
    DOMAINS_EXCLUDED_FIELD_NUMBER: _ClassVar[int]
    IPS_EXCLUDED_FIELD_NUMBER: _ClassVar[int]
    domains_excluded: _containers.RepeatedScalarFieldContainer[bytes]
    ips_excluded: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, domains_excluded: _Optional[_Iterable[bytes]] = ..., ips_excluded: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ReceiverConfig(_message.Message):
    __slots__ = ("port_list", "listen", "sniffing_settings")
    PORT_LIST_FIELD_NUMBER: _ClassVar[int]
    LISTEN_FIELD_NUMBER: _ClassVar[int]
    SNIFFING_SETTINGS_FIELD_NUMBER: _ClassVar[int]
    port_list: _net_pb2.PortList
    listen: _net_pb2.IPOrDomain
    sniffing_settings: SniffingConfig
    def __init__(self, port_list: _Optional[_Union[_net_pb2.PortList, _Mapping]] = ..., listen: _Optional[_Union[_net_pb2.IPOrDomain, _Mapping]] = ..., sniffing_settings: _Optional[_Union[SniffingConfig, _Mapping]] = ...) -> None: ...
