import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

from harness.broker import eventually
from harness.xray import (
    HEADER,
    Sink,
    XrayClient,
    XrayServer,
    new_client,
    open_stream,
    state_of,
    until,
    ws_inbound,
)
from xfleet_contracts.desired_state import OutboundBody
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import lock_exclusively
from xfleet_xraykit.api import XrayApi
from xfleet_xraykit.counters import ClientTraffic, client_traffic
from xfleet_xraykit.errors import XrayDown
from xfleet_xraykit.launcher import BinaryLauncher, WheelLauncher
from xfleet_xraykit.links import share_link
from xfleet_xraykit.process import StartedXray, is_running, start_time_ticks, stop, wait_exit
from xfleet_xraykit.render import render_config
from xfleet_xraykit.state import State

PARENT = """
import asyncio, json, os, sys
from pathlib import Path
import msgspec
from xfleet_runtime.files import lock_exclusively
from xfleet_xraykit.api import XrayApi
from xfleet_xraykit.launcher import WheelLauncher

async def main(directory, config):
    lock = lock_exclusively(directory / "lock", owner="Xray")
    socket = directory / "api.sock"
    started = await WheelLauncher().start(config, api_socket=socket, output=directory / "output", lock_fd=lock)
    api = XrayApi(socket)
    await api.wait_ready(started)
    (directory / "started").write_bytes(msgspec.json.encode(started))
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(Path(sys.argv[1]), json.loads(sys.stdin.read())))
"""


@pytest.mark.real_xray
async def test_xray_outlives_the_process_that_started_it_and_is_adopted_with_its_counters(short_dir: Path) -> None:
    inbound = ws_inbound(7)
    client = new_client(3, inbound)
    state = state_of([(inbound, [client])])
    state.outbounds.append(
        OutboundBody(tag="direct", protocol="freedom", settings={"finalRules": [{"action": "allow"}]})
    )
    config = render_config(state, api_socket=str(short_dir / "api.sock"))
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(short_dir), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write(msgspec.json.encode(config))
    parent.stdin.close()
    assert await parent.stdout.readline() == b"ready\n"
    started = msgspec.json.decode((short_dir / "started").read_bytes(), type=StartedXray)
    link = share_link(inbound, client, address="127.0.0.1", remark="")
    try:
        async with Sink() as sink, XrayClient.from_link(link) as app:
            stream = await open_stream(app, sink.port)
            await stream.send(HEADER.pack(1_000, 500))
            await stream.receive(500)
            parent.kill()
            await parent.wait()
            await stream.send(bytes(1_000))
            assert await stream.reader.read() == b""
            await stream.close()
            assert is_running(started)
            with pytest.raises(Unusable, match="already runs"):
                lock_exclusively(short_dir / "lock", owner="Xray")
            api = XrayApi(started.api_socket)

            async def counted() -> bool:
                return client_traffic(await api.query_counters()).get((3, 7)) == ClientTraffic(1_016, 500)

            await until(counted)
            await api.close()
    finally:
        assert await stop(started) is None, "an adopted process has no exit code for us"
    assert not is_running(started)
    os.close(lock_exclusively(short_dir / "lock", owner="Xray"))


@pytest.mark.real_xray
async def test_a_stale_socket_file_does_not_stop_a_start(short_dir: Path) -> None:
    api_socket = short_dir / "api.sock"
    config = render_config(State(), api_socket=str(api_socket))
    for _ in range(2):
        started = await WheelLauncher().start(config, api_socket=api_socket, output=short_dir / "output")
        api = XrayApi(api_socket)
        await api.wait_ready(started)
        await api.close()
        os.kill(started.pid, signal.SIGKILL)
        assert await wait_exit(started) == -signal.SIGKILL
        assert api_socket.exists()


@pytest.mark.real_xray
async def test_an_xray_that_cannot_start_is_noticed_at_once(short_dir: Path) -> None:
    api_socket = short_dir / "api.sock"
    config = render_config(State(outbounds=[OutboundBody(tag="x", protocol="junk")]), api_socket=str(api_socket))
    started = await WheelLauncher().start(config, api_socket=api_socket, output=short_dir / "output")
    with pytest.raises(XrayDown, match="while it was starting"):
        await XrayApi(api_socket).wait_ready(started)
    assert await wait_exit(started) == 23


@pytest.mark.real_xray
async def test_a_second_xray_takes_over_while_the_first_still_runs(short_dir: Path) -> None:
    inbound = ws_inbound(7)
    state = state_of([(inbound, [])])
    launched: list[StartedXray] = []
    for name in ("a.sock", "b.sock"):
        api_socket = short_dir / name
        config = render_config(state, api_socket=str(api_socket))
        started = await WheelLauncher().start(config, api_socket=api_socket, output=short_dir / "output")
        api = XrayApi(api_socket)
        await api.wait_ready(started)
        await api.close()
        launched.append(started)
    assert await stop(launched[0]) == 0
    socket.create_connection(("127.0.0.1", inbound.port)).close()
    assert await stop(launched[1]) == 0
    assert launched[0].start_id != launched[1].start_id


@pytest.mark.real_xray
async def test_another_process_with_the_same_pid_is_neither_adopted_nor_ended(short_dir: Path) -> None:
    config = render_config(State(), api_socket=str(short_dir / "api.sock"))
    started = await WheelLauncher().start(config, api_socket=short_dir / "api.sock", output=short_dir / "output")
    for changed in (
        msgspec.structs.replace(started, start_time_ticks=started.start_time_ticks - 1),
        msgspec.structs.replace(started, boot_id="another"),
    ):
        assert not is_running(changed)
        await stop(changed)
        assert is_running(started)
    await stop(started)
    assert not is_running(started)


@pytest.mark.real_xray
async def test_the_wheel_knows_its_version() -> None:
    version = await WheelLauncher().version()
    assert version.split(".")[0].isdigit()


async def test_a_question_ends_with_its_asker() -> None:
    program = (
        "import asyncio; from xfleet_xraykit.launcher import WheelLauncher; asyncio.run(WheelLauncher().version())"
    )
    asker = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    children = Path(f"/proc/{asker.pid}/task/{asker.pid}/children")
    await eventually(lambda: children.read_text().strip())
    child = int(children.read_text())
    asker.kill()
    await asker.wait()
    await eventually(lambda: start_time_ticks(child) is None)


async def test_a_socket_path_longer_than_linux_takes_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="too long for a socket"):
        await WheelLauncher().start({}, api_socket=tmp_path / ("x" * 120), output=tmp_path / "output")


async def test_a_missing_binary_is_refused_in_words(tmp_path: Path) -> None:
    launcher = BinaryLauncher(tmp_path / "xray")
    with pytest.raises(Unusable, match="Cannot start"):
        await launcher.start({}, api_socket=tmp_path / "a", output=tmp_path / "output")


async def test_an_output_that_cannot_be_written_is_refused_in_words(short_dir: Path) -> None:
    with pytest.raises(Unusable, match="Cannot write"):
        await WheelLauncher().start({}, api_socket=short_dir / "a", output=short_dir / "missing" / "output")


def fake_binary(directory: Path) -> Path:
    """Stands in for the official program, which no package index carries: same arguments, same answers."""
    path = directory / "xray"
    script = f"""\
        #!{sys.executable}
        import json, os, signal, sys
        words = sys.argv[1:]
        if words == ["version"]:
            print("Xray 26.10.10 (Xray, Penetrates Everything.) fake (go1.27 linux/amd64)")
            sys.exit(0)
        assert words[-4:] == ["-format", "json", "-c", "stdin:"], words
        config = json.loads(sys.stdin.read())
        if config.get("inbounds"):
            print("Failed to start: main: failed to load config > unknown config id: junk")
            sys.exit(23)
        if "-test" in words:
            print("Configuration OK.")
            sys.exit(0)
        print("running with", *sorted(os.listdir("/proc/self/fd")), flush=True)
        signal.pause()
        """
    path.write_text(textwrap.dedent(script))
    path.chmod(0o755)
    return path


async def test_an_official_binary_is_asked_started_and_ended(short_dir: Path) -> None:
    launcher = BinaryLauncher(fake_binary(short_dir))
    assert await launcher.version() == "26.10.10"
    assert (await launcher.probe({"outbounds": []})).ok
    verdict = await launcher.probe({"inbounds": [{"protocol": "junk"}]})
    assert not verdict.ok
    assert "unknown config id: junk" in verdict.text
    lock = os.open(short_dir / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    output = short_dir / "output"
    pipe = os.dup(lock)
    os.set_inheritable(pipe, True)
    async with XrayServer.running(State()):
        started = await launcher.start({}, api_socket=short_dir / "api.sock", output=output, lock_fd=lock)
    os.close(lock)
    os.close(pipe)

    async def running() -> bool:
        return "running" in output.read_text()

    await until(running)
    assert output.read_text() == "running with 0 1 2 3 4\n", "nothing of ours is inherited but the lock (4 is the list)"
    assert os.getsid(started.pid) == started.pid
    with pytest.raises(Unusable):
        lock_exclusively(short_dir / "lock", owner="Xray")
    assert await stop(started) == -signal.SIGTERM
