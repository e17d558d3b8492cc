"""From keys and settings to the directory a nats-server starts from; rendering again changes nothing that must stay."""

import json
from importlib import resources
from pathlib import Path
from string import Template

import msgspec

from xfleet_nats.accounts import AccountState
from xfleet_nats.fleet import FleetIssuer
from xfleet_nats.roles import NAME
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import private_directory, write_private
from xfleet_runtime.keys.x509 import Leaf

GIB = 1024**3
ANY_PORT = -1
_SYNC_ALWAYS = "  sync_interval: always"


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How this node reaches its peers; leave it out for a single node, whose streams would else wait for a quorum."""

    route: Leaf
    """This node's certificate from the route authority."""
    pins: tuple[str, ...]
    """`x509.pin` of every node's route certificate, this one's included."""
    routes: tuple[str, ...]
    """`host:port` of every node's route listener."""
    host: str = "127.0.0.1"
    port: int = 6222


class WebsocketSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A websocket listener, for agents that can only get out over HTTPS ports."""

    host: str = "127.0.0.1"
    port: int = 8443


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between brokers. A port of 0 lets the system choose; `BrokerProcess.port` tells which it was."""

    directory: Path
    server_name: str = "n1"
    host: str = "127.0.0.1"
    port: int = 4222
    monitor_port: int = 0
    """Always on loopback: nats-server asks nobody for a certificate there."""
    store_max_bytes: int = 16 * GIB
    cluster: ClusterSettings | None = None
    websocket: WebsocketSettings | None = None

    @property
    def config_file(self) -> Path:
        """The file nats-server starts from."""
        return self.directory / "server.conf"

    @property
    def log_file(self) -> Path:
        """nats-server's own log."""
        return self.directory / "nats-server.log"

    @property
    def run_directory(self) -> Path:
        """Where the running process leaves its ports and number."""
        return self.directory / "run"

    @property
    def jwt_directory(self) -> Path:
        """The account tokens the broker holds; what is in there wins over what is rendered."""
        return self.directory / "jwt"

    @property
    def store_directory(self) -> Path:
        """JetStream's files."""
        return self.directory / "js"

    @property
    def single_node_mark(self) -> Path:
        """Says that the store was filled by a single node."""
        return self.directory / "single-node"


def render_broker(settings: BrokerSettings, issuer: FleetIssuer, account: AccountState | None = None) -> Path:
    """Writes configuration, certificates and keys (0600, in a directory of 0700) and returns the configuration's path.

    The broker's certificate is new each time, the operator's token byte-identical. `account` is the state to start
    from; it never replaces a newer one that the node already holds. Raises `Unusable` for settings that cannot work.
    """
    _check(settings)
    directory = private_directory(settings.directory.absolute())
    for inner in (settings.run_directory, settings.jwt_directory, settings.store_directory):
        private_directory(inner)
    if settings.cluster is None:
        _write(settings.single_node_mark, "")
    renew_certificate(directory, issuer)
    if settings.cluster is not None:
        _write(directory / "route-ca.crt", issuer.keys.route_authority.certificate_pem)
        _write(directory / "route.crt", settings.cluster.route.chain_pem)
        _write(directory / "route.key", settings.cluster.route.key_pem)
    _write(directory / "server.conf", render_config(settings, issuer, account))
    return directory / "server.conf"


def renew_certificate(directory: Path, issuer: FleetIssuer) -> None:
    """A new key and certificate for the broker of that directory, which takes them when it is reloaded.

    Raises `Unusable`.
    """
    leaf = issuer.issue_broker_certificate()
    _write(directory / "ca.crt", issuer.keys.ca_pem)
    _write(directory / "server.key", leaf.key_pem)
    _write(directory / "server.crt", leaf.chain_pem)


def render_config(settings: BrokerSettings, issuer: FleetIssuer, account: AccountState | None = None) -> str:
    """The configuration's text; it holds tokens, which are public, and no key."""
    keys, directory = issuer.keys, settings.directory.absolute()
    tls = {
        "cert_file": _quoted(directory / "server.crt"),
        "key_file": _quoted(directory / "server.key"),
        "ca_file": _quoted(directory / "ca.crt"),
    }
    return _template("server").substitute(
        tls,
        server_name=settings.server_name,
        listen=_address(settings.host, settings.port),
        monitor=_address("127.0.0.1", settings.monitor_port),
        run_dir=_quoted(settings.run_directory.absolute()),
        log_file=_quoted(settings.log_file.absolute()),
        operator_jwt=keys.operator_jwt,
        system_account=keys.system_account,
        system_jwt=keys.system_jwt,
        fleet_account=keys.fleet_account,
        fleet_jwt=issuer.account_jwt(account),
        jwt_dir=_quoted(settings.jwt_directory.absolute()),
        store_dir=_quoted(settings.store_directory.absolute()),
        store_max_bytes=settings.store_max_bytes,
        sync_interval=_SYNC_ALWAYS if settings.cluster is None else "",
        cluster=_cluster(settings.cluster, keys.fleet_id, directory) if settings.cluster else "",
        websocket=_websocket(settings.websocket, tls) if settings.websocket else "",
    )


def _cluster(cluster: ClusterSettings, fleet_id: str, directory: Path) -> str:
    return _template("cluster").substitute(
        cluster_name=f"xfleet-{fleet_id}",
        listen=_address(cluster.host, cluster.port),
        routes=json.dumps([f"nats-route://{route}" for route in cluster.routes]),
        cert_file=_quoted(directory / "route.crt"),
        key_file=_quoted(directory / "route.key"),
        ca_file=_quoted(directory / "route-ca.crt"),
        pins=json.dumps(list(cluster.pins)),
    )


def _websocket(websocket: WebsocketSettings, tls: dict[str, str]) -> str:
    return _template("websocket").substitute(tls, listen=_address(websocket.host, websocket.port))


def _template(name: str) -> Template:
    return Template(resources.files("xfleet_nats").joinpath(f"{name}.conf.template").read_text(encoding="utf-8"))


def _address(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return json.dumps(f"{shown}:{port or ANY_PORT}")


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)


def _write(path: Path, text: str) -> None:
    try:
        write_private(path, text.encode())
    except OSError as error:
        raise Unusable(f"Cannot write {path}: {error.strerror}. Free space or fix the directory's rights.") from error


def _check(settings: BrokerSettings) -> None:
    if not NAME.fullmatch(settings.server_name):
        raise Unusable(f"A broker cannot be named {settings.server_name!r}: use lower-case letters, digits, - and _.")
    for port in (settings.port, settings.monitor_port):
        if not 0 <= port <= 65535:  # noqa: PLR2004
            raise Unusable(f"{port} is not a port. Use a number from 1 to 65535, or 0 for any free one.")
    if settings.cluster is not None and settings.single_node_mark.exists() and any(settings.store_directory.iterdir()):
        # Measured: nats-server takes a single node's streams for orphans once it has a cluster, and deletes them.
        raise Unusable(
            f"{settings.store_directory} holds the streams of a single node, which a cluster would delete. "
            "Let the cluster's nodes start in new directories."
        )
    if settings.cluster is not None and not settings.cluster.routes:
        raise Unusable("A cluster needs the addresses of its nodes' route listeners.")
    if settings.cluster is not None and not settings.cluster.pins:
        raise Unusable("A cluster needs the pins of its nodes' route certificates, else any of them could be forged.")
