"""The doctor with everything down: each thing that is broken is named, and nothing is made or changed by looking."""

import os
from pathlib import Path

import pytest

from harness.broker import free_ports
from xfleet_controller.config import ControllerSettings
from xfleet_controller.doctor import machine
from xfleet_controller.doctor.examination import examine
from xfleet_controller.doctor.findings import Finding, exit_code, lines_of
from xfleet_controller.init import InitOrder, initialize
from xfleet_runtime.clock import FakeClock, SystemClock
from xfleet_runtime.files import lock_exclusively


@pytest.fixture
async def settings(tmp_path: Path) -> ControllerSettings:
    settings = ControllerSettings(data_dir=tmp_path / "data")
    await initialize(settings, InitOrder(broker_port=free_ports(1)[0], local_agent=True))
    return settings


async def look(settings: ControllerSettings) -> dict[str, Finding]:
    return {each.check: each for each in await examine(settings, SystemClock())}


async def test_a_stopped_installation_is_whole_but_not_running(settings: ControllerSettings) -> None:
    before = sorted(path.name for path in settings.data_dir.iterdir())
    found = await look(settings)
    assert {name for name, each in found.items() if each.status == "failed"} == {"broker", "panel"}
    assert found["backups"].status == "warning"
    assert sorted(path.name for path in settings.data_dir.iterdir()) == before
    lines = lines_of(list(found.values()))
    assert all("\n" not in line for line in lines)
    assert lines[-1].startswith("2 failed")
    assert exit_code(list(found.values())) == 1


async def test_a_missing_directory_is_all_that_is_said(tmp_path: Path) -> None:
    [finding] = await examine(ControllerSettings(data_dir=tmp_path / "none"), SystemClock())
    assert finding.status == "failed"
    assert not (tmp_path / "none").exists()


async def test_what_is_broken_is_named(settings: ControllerSettings) -> None:
    database, key_file = settings.data_dir / "xfleet.db", settings.key_file
    key = key_file.read_bytes()
    key_file.unlink()
    assert (await look(settings))["key-file"].status == "failed"
    key_file.write_bytes(b"xfleet-key-1 " + b"A" * 43 + b"=\n")
    key_file.chmod(0o600)
    assert (await look(settings))["keys"].status == "failed"
    key_file.write_bytes(key)
    settings.data_dir.chmod(0o755)
    assert (await look(settings))["data-dir"].status == "warning"
    whole = database.read_bytes()
    spoiled = bytearray(whole)
    spoiled[len(whole) // 2 : len(whole) // 2 + 20000] = os.urandom(20000)
    database.write_bytes(spoiled)
    found = await look(settings)
    assert "failed" in {found[name].status for name in ("integrity", "database") if name in found}
    database.write_bytes(b"not a database at all" * 1000)
    assert (await look(settings))["database"].status == "failed"
    database.unlink()
    assert (await look(settings))["database"].status == "failed"
    assert not database.exists()


async def test_certificates_that_end_soon_are_named(settings: ControllerSettings) -> None:
    clock = FakeClock(SystemClock().now())
    clock.advance(40 * 365 * 86400)
    found = [each for each in await examine(settings, clock) if each.check == "fleet-ca"]
    assert {each.status for each in found} == {"failed"}


async def test_a_port_that_another_program_took_is_named(settings: ControllerSettings) -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        memory = machine.Memory(panel_port=listener.getsockname()[1])
        assert [each.status for each in machine.check_ports(memory, running=False)] == ["failed"]
        assert [each.status for each in machine.check_ports(memory, running=True)] == ["ok"]
    assert [each.status for each in machine.check_ports(memory, running=True)] == ["failed"]
    lock = lock_exclusively(settings.data_dir / "controller.lock", owner="x")
    assert machine.is_running(settings.data_dir)
    os.close(lock)
    assert not machine.is_running(settings.data_dir)
