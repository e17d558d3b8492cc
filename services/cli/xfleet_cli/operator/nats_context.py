"""`xfleet nats-context`: a context for the NATS command line, with credentials that may look and nothing else."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import click
import msgspec

from xfleet_cli.operator.access import read_access
from xfleet_cli.operator.common import with_credentials
from xfleet_cli.operator.show import carry_out
from xfleet_runtime.broker import Credentials
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import private_directory, write_private


@click.command("nats-context")
@click.option("--name", default="xfleet", show_default=True, help="Name of the context.")
@click.option("--directory", type=click.Path(path_type=Path), help="Instead of ~/.config/nats/context.")
@with_credentials
def nats_context(path: Path, *, name: str, directory: Path | None) -> None:
    """Write a context for the `nats` program: role ops-ro, which sees much and changes nothing."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise Unusable(f"{name!r} cannot be a context's name. Use letters, digits, - and _.")

    async def work() -> None:
        home = directory or Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "nats" / "context"
        write_context(read_access(path).looking, home, name)

    carry_out(work)


def write_context(credentials: Credentials, directory: Path, name: str) -> None:
    """The context and the files it names, all of mode 0600. Raises `Unusable`."""
    keys = directory.parent / "xfleet" / name
    parts = urlsplit(credentials.urls[0])
    files = {"ca.pem": credentials.ca_pem, "cert.pem": credentials.cert_pem, "key.pem": credentials.key_pem}
    context = {
        "description": "xfleet, read only",
        "url": f"tls://{credentials.tls_name}:{parts.port}",
        "creds": str(keys / "user.creds"),
        "ca": str(keys / "ca.pem"),
        "cert": str(keys / "cert.pem"),
        "key": str(keys / "key.pem"),
        "inbox_prefix": credentials.inbox_prefix,
    }
    try:
        private_directory(keys)
        directory.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            write_private(keys / file, text.encode())
        write_private(keys / "user.creds", creds_text(credentials).encode())
        write_private(directory / f"{name}.json", msgspec.json.format(msgspec.json.encode(context)))
    except OSError as error:
        raise Unusable(f"Cannot write the context in {directory}: {error.strerror}.") from error
    click.echo(f"Written: {directory / f'{name}.json'}. Use it with: nats --context {name} server list …")
    click.echo(
        f"The broker proves itself as {credentials.tls_name}; the nats program finds it by that name with this line in"
        f" /etc/hosts:\n{parts.hostname} {credentials.tls_name}"
    )


def creds_text(credentials: Credentials) -> str:
    """JWT and seed in the form of a NATS credentials file."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{credentials.jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{credentials.seed}\n------END USER NKEY SEED------\n"
    )
