"""What `xfleet up` can be told."""

import ipaddress
import os
import re
from pathlib import Path

import msgspec

from xfleet_runtime.errors import Unusable

DEFAULT_PANEL_PORT = 2053
DEFAULT_BROKER_PORT = 4222
HIGHEST_PORT = 65535
BASE_PATH = re.compile(r"/?[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*/?|/?")
DECIDED_HERE = frozenset({"listen", "port", "broker_url", "state_dir", "credentials_file", "token_file"})
"""Settings of the parts that `xfleet up` itself chooses: given to it, they would silently do nothing."""


class UpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of `xfleet up`."""

    data_dir: Path | None = None
    """Where everything lives. Default: `xfleet` in the XDG state directory; /var/lib/xfleet for root."""
    panel_port: int | None = None
    """Port of the panel; 0 takes a free one. Default: the one used last time, else 2053."""
    broker_port: int | None = None
    """Port of the broker; 0 takes a free one. Default: the one used last time, else 4222."""
    broker_websocket_port: int = 0
    """Port on which the broker also speaks `wss://`, for agents that only get out to 443; 0 for none."""
    ready_file: Path | None = None
    """Written when the panel answers: JSON with `panel_url`, `broker_url` and `pid`."""
    public: bool = False
    """Listen on all addresses, with TLS and a random base path."""
    base_path: str | None = None
    """Prefix of every URL of the panel, such as `/3fK9`. Default: the last one; random with `public`, else none."""
    behind_proxy: str = ""
    """Addresses (CIDR) of a reverse proxy that ends TLS and whose forwarding headers are believed."""
    tls_cert: Path | None = None
    """The panel's certificate chain, PEM. Default with `public`: one of an authority of our own."""
    tls_key: Path | None = None
    """The private key of `tls_cert`, PEM."""
    bot_token: str = ""
    """The Telegram bot's token from @BotFather; without one no bot is started."""
    bot_api_base: str = ""
    """Base address of the Bot API; empty: Telegram's own."""
    log_level: str = "info"
    """`debug`, `info`, `warning` or `error`, for all parts."""


def check(settings: UpSettings) -> None:
    """Raises `Unusable` for combinations that cannot work."""
    for name, port in (("--panel-port", settings.panel_port), ("--broker-port", settings.broker_port)):
        if port is not None and not 0 <= port <= HIGHEST_PORT:
            raise Unusable(
                f"{name} {port} is not a port. Use a number from 1 to {HIGHEST_PORT}, or 0 for any free one."
            )
    if not 0 <= settings.broker_websocket_port <= HIGHEST_PORT:
        raise Unusable(f"--broker-websocket-port {settings.broker_websocket_port} is not a port. Use 1 to 65535.")
    given = [port for port in (settings.panel_port, settings.broker_port, settings.broker_websocket_port) if port]
    if len(set(given)) < len(given):
        raise Unusable(
            f"Panel and broker cannot both use port {max(given, key=given.count)}. Give two different ports."
        )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise Unusable("--tls-cert and --tls-key belong together: give both or neither.")
    if settings.base_path is not None and not BASE_PATH.fullmatch(settings.base_path):
        raise Unusable(f"--base-path {settings.base_path!r} cannot be a path. Use one such as /panel.")
    if settings.behind_proxy:
        try:
            ipaddress.ip_network(settings.behind_proxy, strict=False)
        except ValueError as error:
            raise Unusable(
                f"--behind-proxy {settings.behind_proxy!r} is not a network. Use one such as 10.0.0.0/8."
            ) from error


def data_directory(settings: UpSettings) -> Path:
    """The absolute data directory."""
    if settings.data_dir is not None:
        return settings.data_dir.expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/xfleet")
    state_home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state_home).expanduser().absolute() / "xfleet"
