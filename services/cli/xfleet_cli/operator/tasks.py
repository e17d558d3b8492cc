"""`xfleet task` and `xfleet order`: what was ordered from servers, what became of it, and ordering more."""

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from xfleet_cli.operator.access import ASK_TIMEOUT_S, Desk
from xfleet_cli.operator.common import as_json, on_desk, with_credentials
from xfleet_cli.operator.show import moment, plain, say_json, table
from xfleet_contracts import control
from xfleet_contracts.control import OrderRequest, TaskLine, TaskLines, TaskRequest, TasksRequest
from xfleet_runtime.errors import Unusable
from xfleet_runtime.ids import new_id

WAIT_STEP_S = 20.0
EXIT_NOT_DONE = 3
GOOD = ("completed",)
OPEN = ("pending", "running")
_WAIT = click.option("--wait", is_flag=True, help="Until it is done; exit code 3 when it did not succeed.")


@click.command()
@click.argument("task_id", required=False, type=int)
@click.option("--server", default="", help="Only of this server.")
@click.option("--status", default="", help="pending, running, completed, degraded, failed or expired.")
@click.option("--limit", default=20, show_default=True)
@_WAIT
@with_credentials
@as_json
def task(path: Path, task_id: int | None, *, server: str, status: str, limit: int, wait: bool, json_too: bool) -> None:
    """Show the latest tasks, or the one with this number."""

    async def work(desk: Desk) -> None:
        if task_id is not None:
            _show(await _get(desk, task_id, wait=wait), json_too=json_too, judge=wait)
            return
        request = TasksRequest(token=desk.token, server=server, status=status, limit=limit)
        rows = (await desk.ask(control.TASKS, request, TaskLines)).tasks
        if json_too:
            for row in rows:
                say_json(row)
            return
        head = ("task", "server", "operation", "status", "by", "revision", "created", "took")
        click.echo("\n".join(table(head, [_row(row) for row in rows])))

    on_desk(path, work)


@click.command()
@click.argument("server")
@click.argument("verb")
@click.option("--body", default="{}", help="JSON object with what the verb needs.")
@_WAIT
@with_credentials
@as_json
def order(path: Path, server: str, verb: str, *, body: str, wait: bool, json_too: bool) -> None:
    """Order a verb from a server, such as `xray.restart`; it becomes a task."""
    parsed = _object(body)

    async def work(desk: Desk) -> None:
        request = OrderRequest(token=desk.token, server=server, id=new_id(), verb=verb, body=parsed)
        made = await desk.ask(control.ORDER, request, TaskLine)
        _show(await _get(desk, made.id, wait=wait) if wait else made, json_too=json_too, judge=wait)

    on_desk(path, work)


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text.encode(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Unusable(f"--body is not a JSON object: {error}.") from error


async def _get(desk: Desk, task_id: int, *, wait: bool) -> TaskLine:
    while True:
        request = TaskRequest(token=desk.token, task_id=task_id, wait_s=WAIT_STEP_S if wait else 0)
        found = await desk.ask(control.TASK, request, TaskLine, timeout_s=ASK_TIMEOUT_S + request.wait_s)
        if not wait or found.status not in OPEN:
            return found


def _show(found: TaskLine, *, json_too: bool, judge: bool) -> None:
    if json_too:
        say_json(found)
    else:
        _print(found)
    if judge and found.status not in GOOD:
        sys.exit(EXIT_NOT_DONE)


def _row(found: TaskLine) -> tuple[object, ...]:
    return (
        found.id,
        found.server,
        found.operation,
        found.status,
        found.actor,
        "-" if found.revision is None else found.revision,
        moment(found.created_at_ms),
        "-" if found.took_ms is None else f"{found.took_ms} ms",
    )


def _print(found: TaskLine) -> None:
    facts: dict[str, object] = {
        "Task": found.id,
        "Server": found.server,
        "Operation": found.operation,
        "Status": found.status,
        "Ordered by": found.actor,
        "Created": moment(found.created_at_ms),
        "Took": "-" if found.took_ms is None else f"{found.took_ms} ms",
        "Trace": found.trace_id or "-",
    }
    if found.error:
        facts["Error"] = f"{found.error.get('message', '')} ({found.error.get('code', '')})"
    if found.response not in (None, {}, []):
        facts["Answer"] = msgspec.json.encode(found.response).decode()
    for name, value in facts.items():
        click.echo(f"{name:<11} {plain(value)}")
