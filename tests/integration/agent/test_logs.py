"""Logs: read and followed by those who may, whatever is in them and whatever happens to their files."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.agent import AgentProcess, SmallController, agent_process
from harness.broker import FleetBroker, eventually
from xfleet_contracts import codec, subjects
from xfleet_contracts.errors import RemoteRefusal
from xfleet_contracts.logs import MAX_LEASES, MAX_LINE_BYTES, LogLease, LogLines, LogsRead, LogText
from xfleet_runtime.broker import Incoming

TOLD = "was told"


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    directory = tmp_path / "var"
    directory.mkdir()
    return directory / "app.log"


@pytest.fixture
async def agent(broker: FleetBroker, controller: SmallController, listed: Path) -> AsyncIterator[AgentProcess]:
    async with agent_process(broker, log_paths=f"{listed}, {listed.parent}/other.log") as running:
        await controller.heard()
        yield running


async def read(controller: SmallController, log: str, **more: object) -> LogText:
    return await controller.order("logs.read", LogText, LogsRead(log=log, **more))  # type: ignore[arg-type]


async def refused(controller: SmallController, log: str) -> str:
    with pytest.raises(RemoteRefusal) as caught:
        await read(controller, log)
    return caught.value.remote_code


async def test_the_agents_own_log_and_xrays_are_read(agent: AgentProcess, controller: SmallController) -> None:
    own = await read(controller, "agent")
    assert any("connected to the broker" in line for line in own.lines)
    assert all(json.loads(line)["service"] == "agent" for line in own.lines)
    assert own.size_bytes > 0
    assert "Xray" in (await read(controller, "xray_error")).lines[0]
    assert (await read(controller, "xray_access")).lines == ()
    only = await read(controller, "agent", contains="CONNECTED TO", lines_count=1)
    assert len(only.lines) == 1
    # what was rotated away is still found
    log = agent.state_dir / "logs" / "error.log"
    log.with_name("error.log.1").write_text("".join(f"older {n}\n" for n in range(5)))
    assert (await read(controller, "xray_error", lines_count=100)).lines[:5] == tuple(f"older {n}" for n in range(5))


async def test_a_path_outside_the_list_is_refused_however_it_is_spelled(
    agent: AgentProcess, controller: SmallController, listed: Path
) -> None:
    listed.write_text("hello\n")
    assert (await read(controller, str(listed))).lines == ("hello",)
    directory = listed.parent
    assert (await read(controller, f"{directory}/../var/./app.log")).lines == ("hello",), (
        "the same file by another name"
    )
    secret = directory / "secret"
    secret.write_text("a key\n")
    (directory / "link.log").symlink_to(secret)
    for log in (
        str(secret), str(directory / "link.log"), f"{listed}/../secret", "/etc/passwd", "app.log", "", "..", "/",
        f"{listed}\0", "x" * 5000, str(agent.state_dir / "identity.json"), f"{agent.state_dir}/logs/agent.log",
    ):  # fmt: skip
        assert await refused(controller, log) == "log_not_allowed", log
    # a listed log that becomes a link to something else is not followed
    listed.unlink()
    listed.symlink_to(secret)
    assert await refused(controller, str(listed)) == "log_not_allowed"
    listed.unlink()
    assert (await read(controller, str(listed))).lines == ()
    os.mkfifo(listed)
    assert await refused(controller, str(listed)) == "log_unreadable"
    listed.unlink()
    listed.mkdir()
    assert await refused(controller, str(listed)) == "log_unreadable"


async def test_hostile_lines_are_shown_harmless_and_in_bounds(
    agent: AgentProcess, controller: SmallController, listed: Path
) -> None:
    listed.write_bytes(
        b"\xff\xfe\x00 \x1b[2J\x07 tail\r\n" + b"A" * 20_000_000 + b"\n" + "é".encode() * 5000 + b"\nlast"
    )
    text = await read(controller, str(listed))
    assert text.size_bytes == listed.stat().st_size
    assert text.lines[-1] == "last"
    assert all(len(line.encode()) <= MAX_LINE_BYTES for line in text.lines)
    assert text.truncated
    found = await read(controller, str(listed), contains="tail")
    assert found.lines == ("\ufffd" * 3 + " \ufffd[2J\ufffd tail",)
    listed.write_bytes(b"\x01" * 3_000_000)
    assert (await read(controller, str(listed))).truncated
    quotes = '"' * 3000
    listed.write_text("".join(f"{number} {quotes}\n" for number in range(1500)))
    text = await read(controller, str(listed), lines_count=1_000_000)
    assert text.truncated
    assert text.lines[-1].startswith("1499 ")
    listed.write_text("".join(f"{number}\n" for number in range(1500)))
    text = await read(controller, str(listed), lines_count=1_000_000)
    assert (len(text.lines), text.lines[-1], text.truncated) == (1000, "1499", False)


class Looking:
    """Somebody who looks at a live log."""

    def __init__(self, controller: SmallController, log: str, lease: str = "lease1") -> None:
        self.controller, self.log, self.lease = controller, log, lease
        self.messages: list[LogLines] = []

    async def begin(self, *, contains: str = "") -> None:
        async def on_lines(message: Incoming) -> None:
            self.messages.append(codec.decode(message.payload, LogLines))

        await self.controller.ctl.subscribe(subjects.log_lines(self.controller.sid, self.lease), on_lines)
        await self.renew(contains=contains)

    async def renew(self, *, for_s: float = 30, contains: str = "") -> None:
        until_ms = int((time.time() + for_s) * 1000)
        order = LogLease(lease=self.lease, log=self.log, until_ms=until_ms, contains=contains)
        await self.controller.send("log.lease", order)
        await self.controller.ask("health")  # handled after it

    @property
    def lines(self) -> list[str]:
        return [line for message in self.messages for line in message.lines]

    async def sees(self, *lines: str) -> None:
        await eventually(lambda: self.lines[-len(lines) :] == list(lines), within_s=5)


async def test_a_live_log_follows_rotation_and_truncation_and_ends_by_itself(
    agent: AgentProcess, controller: SmallController, listed: Path
) -> None:
    listed.write_text("old\n")
    look = Looking(controller, str(listed))
    await look.begin()
    await asyncio.sleep(0.7)
    with listed.open("a") as log:
        log.write("one\ntw")
        log.flush()
        await look.sees("one")
        log.write("o\nthree\n")
        log.flush()
        await look.sees("one", "two", "three")
        listed.rename(listed.with_name("app.log.1"))
        log.write("before the turn\n")
    listed.write_text("after the turn\n")
    await look.sees("before the turn", "after the turn")
    listed.write_text("short\n")
    await look.sees("short")
    assert "old" not in look.lines
    # a flood is cut to the newest and counted
    with listed.open("a") as log:
        log.write("".join(f"flood {number}\n" for number in range(200_000)))
    await look.sees("flood 199999")
    assert sum(len(each.lines) + each.dropped_count for each in look.messages) == 6 + 200_000
    assert [each.seq for each in look.messages] == list(range(1, len(look.messages) + 1))
    await look.renew(for_s=-1)
    count = len(look.messages)
    with listed.open("a") as log:
        log.write("nobody looks\n")
    await asyncio.sleep(1.2)
    assert len(look.messages) == count


async def test_leases_are_few_and_refusals_are_told_where_the_lines_would_be(
    agent: AgentProcess, controller: SmallController, listed: Path
) -> None:
    outside = Looking(controller, "/etc/passwd", "nosy")
    await outside.begin()
    await eventually(lambda: [each.error for each in outside.messages] == ["log_not_allowed"])
    looks = [Looking(controller, "agent", f"l{number}") for number in range(MAX_LEASES + 1)]
    for look in looks:
        await look.begin()
    await eventually(lambda: [each.error for each in looks[-1].messages] == ["rate_limited"])
    await controller.send("log.lease", LogLease(lease="a.b>", log="agent", until_ms=2**50))
    stats = codec.decode(bytes((await controller.ask("system.stats")).data), dict)
    assert stats["commands_refused"]["malformed"] == 1
    await controller.send("receipt", LogsRead(log="x"))  # something for the log
    await controller.ask("xray.restart")
    await eventually(lambda: looks[0].lines)
