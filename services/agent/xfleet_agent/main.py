"""`xfleet-agent`: runs the agent of a server, or enrolls it."""

import sys
from pathlib import Path
from typing import Any

import click

from xfleet_agent.lean import stay_lean
from xfleet_agent.settings import AgentSettings
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import writable_directory
from xfleet_runtime.known_settings import all_settings
from xfleet_runtime.main import run_async, run_main
from xfleet_runtime.settings import load_settings

STDIN = "-"


@click.group(help="The agent of one VPN server: drives the Xray there.")
def _cli() -> None:
    pass


_STATE_DIR = click.option("--state-dir", type=click.Path(path_type=Path), help="Where the agent keeps everything.")
_TOKEN_FILE = click.option("--token-file", help="File with the enrollment token; - reads it from standard input.")


@_cli.command()
@_STATE_DIR
@_TOKEN_FILE
@click.option("--manifest-file", type=click.Path(path_type=Path), help="The fleet's manifest; taken if it is newer.")
@click.option("--settings-file", type=click.Path(path_type=Path), help="TOML file with settings.")
def run(state_dir: Path | None, token_file: str | None, manifest_file: Path | None, settings_file: Path | None) -> None:
    """Runs the agent; with --token-file it enrolls first if it has no identity yet."""
    settings = _settings(state_dir, settings_file)
    _prepare(settings)
    run_async(_run(settings, token_file, manifest_file))


@_cli.command()
@_STATE_DIR
@click.option("--token-file", required=True, help="File with the enrollment token; - reads it from standard input.")
@click.option("--again", is_flag=True, help="Also where there is an identity already; the new one replaces it.")
def enroll(state_dir: Path | None, token_file: str, *, again: bool) -> None:
    """Trades a one-time enrollment token for this agent's identity."""
    settings = _settings(state_dir, None)
    _prepare(settings)
    run_async(_enroll(settings, token_file, again=again))


def _prepare(settings: AgentSettings) -> None:
    stay_lean()
    from xfleet_agent.logs import AGENT_LOG, LOG_DIRECTORY  # noqa: PLC0415  as below
    from xfleet_runtime.log import configure_logging  # noqa: PLC0415  only now is it known what may be loaded

    configure_logging("agent", level=settings.log_level, file=settings.state_dir / LOG_DIRECTORY / AGENT_LOG)


def _settings(state_dir: Path | None, file: Path | None) -> AgentSettings:
    given: dict[str, Any] = {"state_dir": state_dir.absolute() if state_dir else None}
    return load_settings(AgentSettings, given, file=file, others=all_settings())


async def _run(settings: AgentSettings, token_file: str | None, manifest_file: Path | None) -> None:
    from xfleet_agent.app import run_agent  # noqa: PLC0415  `--help` and bad settings answer without loading it all
    from xfleet_agent.enroll import enroll  # noqa: PLC0415  as above
    from xfleet_agent.identity import find_identity  # noqa: PLC0415  as above

    identity = find_identity(settings.state_dir)
    if identity is None and token_file is None:
        raise Unusable(
            f"There is no identity in {settings.state_dir}. Make an enrollment token in the panel and give it with"
            " --token-file."
        )
    writable_directory(settings.state_dir)
    if identity is not None and manifest_file is not None:
        identity.learn(manifest_file)
    if identity is None:
        identity = await _enrolled(settings, str(token_file), enroll)
    await run_agent(settings, identity)


async def _enroll(settings: AgentSettings, token_file: str, *, again: bool) -> None:
    from xfleet_agent import enroll as enrollment  # noqa: PLC0415  as above
    from xfleet_agent.identity import find_identity  # noqa: PLC0415  as above

    if not again and find_identity(settings.state_dir) is not None:
        raise Unusable(f"{settings.state_dir} already holds an identity. Remove identity.json there to enroll again.")
    writable_directory(settings.state_dir)
    act = enrollment.enroll_again if again else enrollment.enroll
    identity = await _enrolled(settings, token_file, act)
    click.echo(f"Enrolled as {identity.sid}.")


async def _enrolled(settings: AgentSettings, token_file: str, act: Any) -> Any:
    from xfleet_agent.enroll import read_token  # noqa: PLC0415  as above
    from xfleet_runtime.broker import parse_proxy  # noqa: PLC0415  as above

    return await act(settings.state_dir, read_token(_token_text(token_file)), parse_proxy(settings.broker_proxy))


def _token_text(token_file: str) -> str:
    if token_file == STDIN:
        return sys.stdin.read()
    try:
        return Path(token_file).read_text(encoding="utf-8")
    except OSError as error:
        raise Unusable(f"Cannot read the enrollment token in {token_file}: {error.strerror}.") from error


def main() -> None:
    """The console script."""
    run_main(_cli)


if __name__ == "__main__":
    main()
