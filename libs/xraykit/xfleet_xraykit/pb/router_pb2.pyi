from xfleet_xraykit.pb import net_pb2 as _net_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RoutingRule(_message.Message):
    __slots__ = ("tag", "balancing_tag", "rule_tag", "domain", "ip", "port_list", "networks", "source_ip", "source_port_list", "user_email", "inbound_tag", "protocol", "attributes", "local_ip", "local_port_list", "vless_route_list")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TAG_FIELD_NUMBER: _ClassVar[int]
    BALANCING_TAG_FIELD_NUMBER: _ClassVar[int]
    RULE_TAG_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    PORT_LIST_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_IP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_PORT_LIST_FIELD_NUMBER: _ClassVar[int]
    USER_EMAIL_FIELD_NUMBER: _ClassVar[int]
    INBOUND_TAG_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    LOCAL_IP_FIELD_NUMBER: _ClassVar[int]
    LOCAL_PORT_LIST_FIELD_NUMBER: _ClassVar[int]
    VLESS_ROUTE_LIST_FIELD_NUMBER: _ClassVar[int]
    tag: str
    balancing_tag: str
    rule_tag: str
    domain: _containers.RepeatedScalarFieldContainer[bytes]
    ip: _containers.RepeatedScalarFieldContainer[bytes]
    port_list: _net_pb2.PortList
    networks: _containers.RepeatedScalarFieldContainer[_net_pb2.Network]
    source_ip: _containers.RepeatedScalarFieldContainer[bytes]
    source_port_list: _net_pb2.PortList
    user_email: _containers.RepeatedScalarFieldContainer[str]
    inbound_tag: _containers.RepeatedScalarFieldContainer[str]
    protocol: _containers.RepeatedScalarFieldContainer[str]
    attributes: _containers.ScalarMap[str, str]
    local_ip: _containers.RepeatedScalarFieldContainer[bytes]
    local_port_list: _net_pb2.PortList
    vless_route_list: _net_pb2.PortList
    def __init__(self, tag: _Optional[str] = ..., balancing_tag: _Optional[str] = ..., rule_tag: _Optional[str] = ..., domain: _Optional[_Iterable[bytes]] = ..., ip: _Optional[_Iterable[bytes]] = ..., port_list: _Optional[_Union[_net_pb2.PortList, _Mapping]] = ..., networks: _Optional[_Iterable[_Union[_net_pb2.Network, str]]] = ..., source_ip: _Optional[_Iterable[bytes]] = ..., source_port_list: _Optional[_Union[_net_pb2.PortList, _Mapping]] = ..., user_email: _Optional[_Iterable[str]] = ..., inbound_tag: _Optional[_Iterable[str]] = ..., protocol: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Mapping[str, str]] = ..., local_ip: _Optional[_Iterable[bytes]] = ..., local_port_list: _Optional[_Union[_net_pb2.PortList, _Mapping]] = ..., vless_route_list: _Optional[_Union[_net_pb2.PortList, _Mapping]] = ...) -> None: ...

class Config(_message.Message):
    __slots__ = ("rule",)
    RULE_FIELD_NUMBER: _ClassVar[int]
    rule: _containers.RepeatedCompositeFieldContainer[RoutingRule]
    def __init__(self, rule: _Optional[_Iterable[_Union[RoutingRule, _Mapping]]] = ...) -> None: ...
