"""`/api/v1/backups`: made by hand, on a schedule, fetched and removed."""

import msgspec
from litestar import Controller, delete, get, post, put
from litestar.params import FromPath, JSONBody
from litestar.response import File
from litestar.status_codes import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from xfleet_controller.backups import service
from xfleet_controller.backups.store import Backup, Schedule
from xfleet_controller.edge import TheActor, TheContext


class BackupNew(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A backup to be made now."""

    passphrase: str = ""
    """Empty: the one that is set for all backups."""


class ScheduleIn(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """When backups are made, how many stay and where."""

    every_hours: int
    """0: never."""
    keep_count: int = 7
    directory: str = ""
    """Empty: `backups` in the data directory."""
    passphrase: str | None = None
    """Null: as it is; empty: forget it."""


class BackupsOut(msgspec.Struct, kw_only=True):
    """What is there and what is planned."""

    items: list[Backup]
    every_hours: int
    keep_count: int
    directory: str
    passphrase_known: bool
    last_error: str


class BackupApi(Controller):
    """Encrypted copies of database and keys."""

    path = "/backups"
    tags = ["backups"]

    @get(summary="Backups and their schedule")
    async def list_backups(self, context: TheContext, actor: TheActor) -> BackupsOut:
        """Newest first."""
        found = await service.look(context, actor)
        return BackupsOut(
            items=list(found.backups),
            every_hours=found.schedule.every_hours,
            keep_count=found.schedule.keep_count,
            directory=str(found.directory),
            passphrase_known=found.passphrase_known,
            last_error=found.last_error,
        )

    @post(status_code=HTTP_201_CREATED, summary="Make a backup now")
    async def make(self, context: TheContext, actor: TheActor, data: JSONBody[BackupNew]) -> Backup:
        """Sealed under the passphrase; it lies in the backup directory until it is removed."""
        return await service.make(context, actor, secret=data.passphrase)

    @put("/schedule", summary="Plan backups")
    async def plan(self, context: TheContext, actor: TheActor, data: JSONBody[ScheduleIn]) -> Schedule:
        """The first one is made at once."""
        schedule = Schedule(every_hours=data.every_hours, keep_count=data.keep_count, directory=data.directory)
        return await service.plan(context, actor, schedule, secret=data.passphrase)

    @get("/{name:str}/file", summary="Fetch a backup", media_type="application/octet-stream")
    async def fetch(self, context: TheContext, actor: TheActor, name: FromPath[str]) -> File:
        """The encrypted file."""
        path = await service.find_file(context, actor, name)
        return File(path, filename=name, media_type="application/octet-stream")

    @delete("/{name:str}", status_code=HTTP_204_NO_CONTENT, summary="Remove a backup")
    async def remove(self, context: TheContext, actor: TheActor, name: FromPath[str]) -> None:
        """For good."""
        await service.remove(context, actor, name)
