"""The controller's settings: from command line, environment (`XFLEET_…`) and file, in that order."""

from pathlib import Path

import msgspec


class ControllerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an operator can decide about one controller."""

    data_dir: Path
    """Where keys, the SQLite database and the broker's directory lie."""
    database_url: str = ""
    """SQLAlchemy URL; empty: SQLite in the data directory."""
    listen: str = "127.0.0.1"
    """Address of panel and API."""
    port: int = 2053
    base_path: str = ""
    """Prefix of every URL, such as `/3fK9`."""
    public_url: str = ""
    """Base URL that subscriptions carry, such as `https://panel.example.org/3fK9`; empty: the request's host."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    behind_proxy: str = ""
    """CIDR of the reverse proxies whose forwarded headers are believed."""
    broker_url: str = ""
    """`tls://host:port` of the broker, comma-separated for several; empty: as written by `init`."""
    broker_listen_file: Path | None = None
    """Where `xfleet up` reads on which address its broker should listen; empty: the broker is somebody else's."""
    metrics_token: str = ""
    """Lets `/metrics` be read from other addresses as `Authorization: Bearer`."""
    heartbeat_interval_s: float = 10.0
    """Rhythm of agents, from which online, stale and offline are reckoned."""
    session_idle_days: int = 7
    session_days: int = 30
    profile_title: str = "xfleet"
    """Name of a subscription in VPN apps."""
    profile_update_hours: int = 12
    admin_password: str = ""
    """First password of the admin `admin`; read by `init` only."""
    disk_low_bytes: int = 256 * 1024 * 1024
    """With less free space in the data directory an event tells; 0 never tells."""
    backup_passphrase: str = ""
    """Seals backups and opens them; better given as a file."""
    backup_passphrase_file: Path | None = None
    """A file whose first line is the passphrase of backups."""
    log_level: str = "info"

    @property
    def prefix(self) -> str:
        """The base path with a leading and without a trailing slash; empty for none."""
        stripped = self.base_path.strip("/")
        return f"/{stripped}" if stripped else ""

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir / 'xfleet.db'}"

    @property
    def key_file(self) -> Path:
        """Under which secrets in the database are sealed."""
        return self.data_dir / "keys" / "key-file"

    @property
    def root_file(self) -> Path:
        """The fleet root, which may be taken offline."""
        return self.data_dir / "keys" / "fleet-root"

    @property
    def broker_dir(self) -> Path:
        """The broker's rendered configuration and store."""
        return self.data_dir / "broker"

    @property
    def tls(self) -> bool:
        """Whether the panel itself speaks TLS."""
        return self.tls_cert is not None
