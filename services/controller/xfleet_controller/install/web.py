"""`/install/`: without signing in, for machines that are not servers yet. Nothing secret is told.

Everything but the newest script is named by its SHA-256 and may be kept for ever by whatever lies between.
"""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
from litestar import Controller, Request, Response, get
from litestar.params import FromPath
from litestar.response import Stream

from xfleet_controller.context import Context
from xfleet_controller.edge import TheContext, client_address
from xfleet_controller.errors import NotFound
from xfleet_controller.install import library

CHUNK_BYTES = 256 * 1024
FOREVER = "public, max-age=31536000, immutable"
SCRIPT_TYPE = "text/x-shellscript; charset=utf-8"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class InstallDoor(Controller):
    """What a new machine fetches."""

    path = "/install"
    include_in_schema = False

    @get("/agent.sh")
    async def newest_script(self, request: Request[Any, Any, Any], context: TheContext) -> Response[bytes]:
        """The script as it is now; a joining line names one by its SHA-256 instead."""
        _pass(request, context)
        script = await library.script_of(context.library)
        headers = {"cache-control": "no-cache", "etag": f'"{script.sha256}"'}
        return Response(script.content, media_type=SCRIPT_TYPE, headers=headers)

    @get("/{sha256:str}/{name:str}")
    async def fetch(
        self, request: Request[Any, Any, Any], context: TheContext, sha256: FromPath[str], name: FromPath[str]
    ) -> Response[Any]:
        """A file by its SHA-256; the name is for people and for pip."""
        _pass(request, context)
        if not _SHA256.fullmatch(sha256):
            raise NotFound
        headers = {"cache-control": FOREVER, "etag": f'"{sha256}"'}
        script = context.library.find_script(sha256)
        if script is not None:
            return Response(script, media_type=SCRIPT_TYPE, headers=headers)
        file = await library.find_file(context.library, sha256)
        if file is None or file.name != name:
            raise NotFound("There is no such file (any more). Make a new line in the panel.")
        headers["content-length"] = str(file.size_bytes)
        return Stream(_chunks(file.path), media_type="application/octet-stream", headers=headers)


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while chunk := await file.read(CHUNK_BYTES):
            yield chunk


def _pass(request: Request[Any, Any, Any], context: Context) -> None:
    context.install_gate.pass_through(client_address(request), context.clock.monotonic_s())
