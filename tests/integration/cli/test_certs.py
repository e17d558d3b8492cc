"""`xfleet certs check`: tells a broker that lets in the right ones only from one that does not."""

import json
import re
from pathlib import Path

import pytest

from harness.broker import eventually
from harness.controller_fleet import World, running_world
from harness.process import run, script
from xfleet_cli.certs import prove
from xfleet_cli.operator.access import read_access
from xfleet_controller.init import make_cli_credentials
from xfleet_nats.process import reload_running

pytestmark = pytest.mark.real_broker
TRIED = {
    "no certificate": "refused",
    "a certificate of another authority": "refused",
    "TLS 1.2": "refused",
    "the broker's own certificate": "accepted",
    "our own certificate and token": "accepted",
    "a certificate made just now": "accepted",
    "one that was revoked just now": "refused",
}


async def test_the_chain_is_proved_and_a_broker_that_lets_everybody_in_is_found_out(tmp_path: Path) -> None:
    async with running_world(tmp_path / "data") as world:
        file = await make_cli_credentials(world.settings, tmp_path / "cli.json", "admin", (world.broker.url,))
        said = await run([script("xfleet"), "certs", "check", "--json", "--credentials", str(file)])
        assert said.code == 0, said.err + said.out
        lines = [json.loads(line) for line in said.out.splitlines()]
        assert {line["tried"]: line["found"] for line in lines} == TRIED
        assert all(line["holds"] for line in lines)

        await let_everybody_in(world)
        proofs = await prove(read_access(file))
        wrong = {proof.tried for proof in proofs if not proof.holds}
        assert wrong == {"no certificate", "a certificate of another authority", "TLS 1.2"}

        await world.broker.stop()
        gone = await run([script("xfleet"), "certs", "check", "--credentials", str(file)])
        assert gone.code == 2
        assert len(gone.error_lines) == 1


async def let_everybody_in(world: World) -> None:
    """As somebody might who had trouble with certificates."""
    config = world.settings.broker_dir / "server.conf"
    text = config.read_text()
    config.write_text(re.sub(r'verify: true\n  min_version: "1.3"', 'verify: false\n  min_version: "1.2"', text))
    assert reload_running(world.settings.broker_dir)
    log = world.settings.broker_dir / "nats-server.log"
    await eventually(lambda: "Reloaded server configuration" in log.read_text())
