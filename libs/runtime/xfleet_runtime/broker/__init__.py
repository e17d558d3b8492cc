"""The link to the broker: one connection that survives everything, and the credentials it needs."""

from xfleet_runtime.broker.credentials import Credentials, tls_context
from xfleet_runtime.broker.dial import Proxy, parse_proxy
from xfleet_runtime.broker.link import BrokerLink
from xfleet_runtime.broker.message import Incoming, traceparent
from xfleet_runtime.broker.outages import (
    BrokerOutage,
    Disconnected,
    NoResponders,
    PublishNotStored,
    RequestTimedOut,
)
from xfleet_runtime.broker.subscription import Handler, Subscription

__all__ = [
    "BrokerLink",
    "BrokerOutage",
    "Credentials",
    "Disconnected",
    "Handler",
    "Incoming",
    "NoResponders",
    "Proxy",
    "PublishNotStored",
    "RequestTimedOut",
    "Subscription",
    "parse_proxy",
    "tls_context",
    "traceparent",
]
