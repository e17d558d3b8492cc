"""Orders as the panel shows them."""

from datetime import datetime

import msgspec

from xfleet_controller.panel.views import FormView
from xfleet_controller.tasks.views import TaskRowView


class OrdersPanelView(msgspec.Struct, frozen=True, kw_only=True):
    """What an admin may order from one server."""

    server_id: int
    server_name: str
    online: bool
    xray_state: str = "unknown"
    """running, starting, stopped, crashed or unknown."""
    may_read: bool = True
    may_write: bool = True
    may_install: bool = True
    may_read_logs: bool = True
    tasks: tuple[TaskRowView, ...] = ()
    """The latest orders and changes of this server."""


class OrderFormView(msgspec.Struct, frozen=True, kw_only=True):
    """The form of an order."""

    server_id: int
    server_name: str
    form: FormView


class CheckView(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one check."""

    name: str
    status: str
    """ok, warning or failed"""
    text: str = ""
    took_ms: int = 0


class ChecksView(OrderFormView, frozen=True, kw_only=True):
    """Checks: what to try, and what came of it."""

    checks: tuple[CheckView, ...] = ()
    done: bool = False


class CertificateView(msgspec.Struct, frozen=True, kw_only=True):
    """A domain certificate on a server."""

    name: str
    domains: tuple[str, ...]
    issuer: str
    self_signed: bool
    expires_at: datetime | None
    certificate_path: str
    key_path: str


class CertificatesView(OrderFormView, frozen=True, kw_only=True):
    """The certificates of a server, and the form that makes one."""

    certificates: tuple[CertificateView, ...] = ()
    error: str = ""
    """Why the list could not be had."""
    may_write: bool = True


class ConfigView(msgspec.Struct, frozen=True, kw_only=True):
    """The running configuration."""

    server_id: int
    server_name: str
    text: str = ""
    error: str = ""
