from xfleet_xraykit.pb import typed_message_pb2 as _typed_message_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AddRuleRequest(_message.Message):
    __slots__ = ("config", "shouldAppend")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    SHOULDAPPEND_FIELD_NUMBER: _ClassVar[int]
    config: _typed_message_pb2.TypedMessage
    shouldAppend: bool
    def __init__(self, config: _Optional[_Union[_typed_message_pb2.TypedMessage, _Mapping]] = ..., shouldAppend: _Optional[bool] = ...) -> None: ...

class RemoveRuleRequest(_message.Message):
    __slots__ = ("ruleTag",)
    RULETAG_FIELD_NUMBER: _ClassVar[int]
    ruleTag: str
    def __init__(self, ruleTag: _Optional[str] = ...) -> None: ...

class ListRuleRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRuleItem(_message.Message):
    __slots__ = ("tag", "ruleTag")
    TAG_FIELD_NUMBER: _ClassVar[int]
    RULETAG_FIELD_NUMBER: _ClassVar[int]
    tag: str
    ruleTag: str
    def __init__(self, tag: _Optional[str] = ..., ruleTag: _Optional[str] = ...) -> None: ...

class ListRuleResponse(_message.Message):
    __slots__ = ("rules",)
    RULES_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[ListRuleItem]
    def __init__(self, rules: _Optional[_Iterable[_Union[ListRuleItem, _Mapping]]] = ...) -> None: ...

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
