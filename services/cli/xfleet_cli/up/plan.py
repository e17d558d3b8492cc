"""Decides how this start looks, out of what was asked for and what the last one remembered."""

import secrets

import msgspec

from xfleet_cli.up.layout import Layout, Memory, broker_host, recall, remember
from xfleet_cli.up.ports import choose_port
from xfleet_cli.up.settings import DEFAULT_BROKER_PORT, DEFAULT_PANEL_PORT, UpSettings
from xfleet_cli.up.tls import PanelCertificate, default_address, given_certificate, own_certificate
from xfleet_runtime.clock import SystemClock

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104  only with --public


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One start."""

    layout: Layout
    settings: UpSettings
    host: str
    broker_host: str
    panel_port: int
    broker_port: int
    base_path: str
    """With a leading slash and without a trailing one; empty for none."""
    certificate: PanelCertificate | None
    resumed: bool

    @property
    def panel_url(self) -> str:
        """Where a person opens the panel."""
        scheme = "https" if self.certificate else "http"
        address = default_address() if self.settings.public else LOOPBACK
        return f"{scheme}://{address}:{self.panel_port}{self.base_path}/"

    @property
    def broker_url(self) -> str:
        """Where the parts on this machine find the broker."""
        return f"tls://{LOOPBACK}:{self.broker_port}"


def make_plan(settings: UpSettings, layout: Layout) -> Plan:
    """Chooses ports, base path and certificate, and remembers them. Raises `Unusable`."""
    last = recall(layout)
    known = last or Memory()
    host = EVERYWHERE if settings.public else LOOPBACK
    panel_port = choose_port(
        "panel", "--panel-port", host, asked=settings.panel_port, last=known.panel_port, usual=DEFAULT_PANEL_PORT
    )
    brokers_host = EVERYWHERE if broker_host(layout) else host
    broker_port = choose_port(
        "broker",
        "--broker-port",
        brokers_host,
        asked=settings.broker_port,
        last=known.broker_port,
        usual=DEFAULT_BROKER_PORT,
    )
    certificate = _certificate(settings, layout)
    base_path = _base_path(settings, known)
    remember(layout, Memory(panel_port=panel_port, broker_port=broker_port, base_path=base_path))
    return Plan(
        layout=layout,
        settings=settings,
        host=host,
        broker_host=brokers_host,
        panel_port=panel_port,
        broker_port=broker_port,
        base_path=base_path,
        certificate=certificate,
        resumed=last is not None,
    )


def _base_path(settings: UpSettings, known: Memory) -> str:
    if settings.base_path is not None:
        stripped = settings.base_path.strip("/")
        return f"/{stripped}" if stripped else ""
    return known.base_path or (f"/{secrets.token_urlsafe(9)}" if settings.public else "")


def _certificate(settings: UpSettings, layout: Layout) -> PanelCertificate | None:
    if settings.tls_cert is not None and settings.tls_key is not None:
        return given_certificate(settings.tls_cert, settings.tls_key)
    if settings.public and not settings.behind_proxy:
        return own_certificate(layout.tls, SystemClock())
    return None
