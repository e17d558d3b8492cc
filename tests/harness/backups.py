"""Backups by the commands an operator types."""

from pathlib import Path

from harness.process import Outcome, run, script

PASSPHRASE = "tests of a backup"


async def backup_command(data_dir: Path, *options: str, passphrase: str = PASSPHRASE) -> Outcome:
    """`xfleet backup`."""
    environment = {"XFLEET_BACKUP_PASSPHRASE": passphrase}
    return await run([script("xfleet"), "backup", "--data-dir", str(data_dir), *options], environment=environment)


async def back_up(data_dir: Path, output: Path) -> Path:
    """A backup that worked."""
    outcome = await backup_command(data_dir, "--output", str(output))
    assert outcome.code == 0, outcome.err
    return output


async def restore_command(archive: Path, data_dir: Path, *options: str, passphrase: str = PASSPHRASE) -> Outcome:
    """`xfleet restore`."""
    environment = {"XFLEET_BACKUP_PASSPHRASE": passphrase}
    command = [script("xfleet"), "restore", str(archive), "--data-dir", str(data_dir), *options]
    return await run(command, environment=environment)


async def restore(archive: Path, data_dir: Path, *options: str) -> None:
    """A restore that worked."""
    outcome = await restore_command(archive, data_dir, *options)
    assert outcome.code == 0, outcome.err
