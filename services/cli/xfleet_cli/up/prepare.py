"""Has the controller prepare the data directory: keys, database, first admin, broker configuration, local server."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from xfleet_cli.up.logs import open_log
from xfleet_cli.up.parts import last_line, script
from xfleet_runtime.errors import Unusable
from xfleet_runtime.main import EXIT_UNUSABLE

PREPARE_TIMEOUT_S = 120.0


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What `xfleet-controller init` answers, as one line of JSON on stdout."""

    fleet_id: str
    admin_created: bool
    admin_password: str | None = None
    """Only when it was made up just now: nobody can show it again."""
    base_path: str = ""
    broker_config: Path
    broker_url: str
    enroll_token_file: Path | None = None
    bot_credentials_file: Path
    manifest_file: Path
    """The fleet's signed manifest, for the agent on this machine."""
    new: bool


async def prepare(arguments: Sequence[str], *, environment: Mapping[str, str], log_file: Path) -> Prepared:
    """Runs `xfleet-controller init`. Raises `Unusable` with its reason."""
    log = open_log(log_file)
    child = await asyncio.create_subprocess_exec(
        script("xfleet-controller"),
        "init",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        env=dict(environment),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(PREPARE_TIMEOUT_S):
            out, _ = await child.communicate()
    except TimeoutError:
        raise Unusable(f"Preparing the data directory took too long. Its log: {log_file}") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode == EXIT_UNUSABLE:
        reason = last_line(log_file).removeprefix("xfleet: ")
        raise Unusable(reason or f"Preparing the data directory was refused. Its log: {log_file}")
    if child.returncode != 0:
        raise Unusable(f"Preparing the data directory failed (exit code {child.returncode}). Its log: {log_file}")
    try:
        return msgspec.json.decode(out.strip().splitlines()[-1], type=Prepared, dec_hook=_path)
    except (IndexError, msgspec.MsgspecError) as error:
        raise Unusable(f"xfleet-controller init answered something else than expected: {error}.") from error


def _path(kind: type, value: object) -> object:
    if kind is Path:
        return Path(str(value))
    raise TypeError(kind)
