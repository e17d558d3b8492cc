"""`init`: everything a new installation needs, and nothing changed in one that has it."""

from pathlib import Path

import msgspec

from xfleet_contracts.enrollment import SignedManifest
from xfleet_controller.app import BROKER_URLS, make_context
from xfleet_controller.auth import service as auth
from xfleet_controller.auth.passwords import password_errors
from xfleet_controller.auth.rights import SYSTEM
from xfleet_controller.config import ControllerSettings
from xfleet_controller.context import Context
from xfleet_controller.control.credentials import FILE_NAME as CLI_FILE
from xfleet_controller.control.credentials import write_credentials
from xfleet_controller.db import Database
from xfleet_controller.fleet import service as fleet_service
from xfleet_controller.fleet import store as fleet_store
from xfleet_controller.fleet.keyring import load_keys, load_or_create_keys, open_vault
from xfleet_controller.fleet.manifest import default_address, ensure_manifest, with_public
from xfleet_controller.fleet.service import ACCOUNT_SETTING, Fleet
from xfleet_controller.servers import service as servers
from xfleet_controller.servers import store as servers_store
from xfleet_controller.traffic.lost import note_lost_agent
from xfleet_nats.accounts import AccountState
from xfleet_nats.fleet import FleetIssuer
from xfleet_nats.render import BrokerSettings, WebsocketSettings, render_broker
from xfleet_runtime.clock import SystemClock
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import writable_directory, write_private
from xfleet_runtime.ids import new_token

WILDCARDS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104  compared with, not bound


class Initialized(msgspec.Struct, frozen=True, kw_only=True):
    """What `init` answers, as one line of JSON."""

    fleet_id: str
    admin_created: bool
    admin_password: str | None
    """Only when it was made up just now: nobody can show it again."""
    base_path: str
    broker_config: str
    broker_url: str
    enroll_token_file: str | None
    bot_credentials_file: str
    cli_credentials_file: str | None = None
    """For the operator's verbs on this machine; None when no owner is enabled."""
    manifest_file: str
    """The signed manifest, for agents on this machine."""
    new: bool


class InitOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What `init` is told beside the settings."""

    local_agent: bool = False
    """Makes the server `local` and a token for its agent."""
    broker_host: str = "127.0.0.1"
    broker_port: int = 4222
    broker_websocket_port: int = 0
    """Where the broker also listens for `wss://`; 0 for nowhere."""
    broker_urls: tuple[str, ...] = ()
    """What agents elsewhere use; empty: made from host and port."""


async def initialize(settings: ControllerSettings, order: InitOrder) -> Initialized:
    """Makes what is missing. Raises `Unusable`."""
    writable_directory(settings.data_dir)
    if settings.admin_password and (errors := password_errors(settings.admin_password)):
        raise Unusable(f"XFLEET_ADMIN_PASSWORD cannot be used: {errors[0].reason}")
    clock, database = SystemClock(), Database(settings.database)
    try:
        await database.migrate()
        vault = await open_vault(database, settings.key_file)
        keys, new = await load_or_create_keys(database, vault, settings.root_file, clock)
        context = make_context(settings, database, vault, clock)
        urls = order.broker_urls or _urls(order)
        async with database.write() as session:
            await fleet_store.set_setting(session, BROKER_URLS, list(urls), clock.now())
            told = await with_public(session, urls)
        issuer = FleetIssuer(keys, clock)
        manifest = await ensure_manifest(database, keys, settings.root_file, clock, broker_urls=told)
        context.fleet = Fleet(issuer, manifest, urls, vault, clock)
        config = await render_own_broker(context, issuer, order)
        password = settings.admin_password or new_token()[:20]
        admin_created = await auth.ensure_first_admin(context, password)
        cli = await write_credentials(database, issuer, urls, settings.data_dir / "keys" / CLI_FILE, clock)
        token_file = await _local_agent(context, settings.data_dir) if order.local_agent else None
        return Initialized(
            fleet_id=keys.fleet_id,
            admin_created=admin_created,
            admin_password=password if admin_created and not settings.admin_password else None,
            base_path=settings.prefix,
            broker_config=str(config),
            broker_url=urls[0],
            enroll_token_file=str(token_file) if token_file else None,
            cli_credentials_file=str(cli) if cli else None,
            bot_credentials_file=str(_bot_credentials(issuer, urls, settings.data_dir)),
            manifest_file=str(_manifest_file(manifest, settings.data_dir)),
            new=new,
        )
    finally:
        await database.close()


async def make_cli_credentials(settings: ControllerSettings, path: Path, admin: str, urls: tuple[str, ...]) -> Path:
    """Credentials of a command line for an admin, also while the controller runs. Raises `Unusable`."""
    clock, database = SystemClock(), Database(settings.database)
    try:
        vault = await open_vault(database, settings.key_file)
        keys = await load_keys(database, vault)
        if keys is None:
            raise Unusable(f"There is no fleet in {settings.data_dir}. Run: xfleet-controller init")
        async with database.read() as session:
            known = tuple(await fleet_store.find_setting(session, BROKER_URLS) or ())
        issuer = FleetIssuer(keys, clock)
        made = await write_credentials(database, issuer, urls or known, path, clock, admin_name=admin)
        if made is None:
            raise Unusable("There is no enabled owner. Give --admin NAME.")
        return made
    finally:
        await database.close()


async def render_own_broker(context: Context, issuer: FleetIssuer, order: InitOrder) -> Path:
    """Writes what the broker of this installation starts from."""
    async with context.database.read() as session:
        revoked = await fleet_store.list_revocations(session, context.clock.now())
        serial = int(await fleet_store.find_setting(session, ACCOUNT_SETTING) or 0)
    state = AccountState(serial=serial, issued_at=int(context.clock.now().timestamp()), revocations=revoked)
    port = order.broker_websocket_port
    broker = BrokerSettings(
        directory=context.settings.broker_dir,
        host=order.broker_host,
        port=order.broker_port,
        websocket=WebsocketSettings(host=order.broker_host, port=port) if port else None,
    )
    return render_broker(broker, issuer, state if revoked else None)


async def _local_agent(context: Context, data_dir: Path) -> Path | None:
    """The file with the local agent's token; None once it has enrolled."""
    if context.fleet is None:
        raise RuntimeError("init without a fleet")
    now, path = context.clock.now(), data_dir / "keys" / "local-agent.token"
    async with context.database.write() as session:
        server = await servers_store.find_by_slug(session, servers.LOCAL)
        if server is None:
            new = servers.ServerNew(name=servers.LOCAL, slug=servers.LOCAL)
            server = await servers.add_server(session, context, SYSTEM, new)
        elif await fleet_store.list_live_certificates(session, server.id, now):
            if (data_dir / "agent" / "identity.json").exists():
                path.unlink(missing_ok=True)
                return None
            await note_lost_agent(session, server.id, now)
        line = await fleet_service.make_token(session, context.fleet, SYSTEM, server)
    write_private(path, f"{line}\n".encode())
    return path


def _manifest_file(manifest: SignedManifest, data_dir: Path) -> Path:
    """The manifest in a file: an agent here learns from it where the broker went while nothing ran."""
    path = data_dir / "keys" / "manifest.json"
    write_private(path, msgspec.json.encode(manifest))
    return path


def _bot_credentials(issuer: FleetIssuer, urls: tuple[str, ...], data_dir: Path) -> Path:
    """Fresh credentials of the role `bot`, in a file of its own."""
    path = data_dir / "keys" / "bot-credentials.json"
    write_private(path, msgspec.json.encode(issuer.bus_credentials("bot", "bot", urls)))
    return path


def _urls(order: InitOrder) -> tuple[str, ...]:
    hosts = [order.broker_host]
    if order.broker_host in WILDCARDS:
        hosts = [host for host in ("127.0.0.1", default_address()) if host]
    ports = (("tls", order.broker_port), ("wss", order.broker_websocket_port))
    return tuple(_url(scheme, host, port) for scheme, port in ports if port or scheme == "tls" for host in hosts)


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
