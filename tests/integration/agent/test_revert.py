"""Configuration that kills Xray is taken back; a full disk and a stopped Xray stop nothing else."""

import os
import signal

from harness.agent import AgentProcess, SmallController, agent_process, entities
from harness.broker import FleetBroker, eventually
from harness.xray import Sink, XrayClient, direct_to_loopback, new_client, passes, ws_inbound
from xfleet_xraykit.links import share_link


async def crash(agent: AgentProcess, controller: SmallController, count: int) -> None:
    """Kills Xray and waits until the agent noticed."""

    def serving() -> int:
        xrays, beat = agent.xrays(), controller.beats[-1]
        same = len(xrays) == 1 and beat.xray.status == "running" and beat.xray.start_id == xrays[0].start_id
        return xrays[0].pid if same else 0

    os.kill(await eventually(serving, within_s=20), signal.SIGKILL)
    await eventually(lambda: len(controller.told("xray_crashed")) >= count, within_s=20)


async def test_three_crashes_after_a_change_fall_back_to_the_last_good_configuration(
    broker: FleetBroker, controller: SmallController, sink: Sink
) -> None:
    inbound, new = ws_inbound(7001), ws_inbound(7002)
    client, newcomer = new_client(501, inbound), new_client(502, new)
    async with agent_process(broker, probation_s="12") as agent:
        await controller.heard()
        await controller.apply(entities(direct_to_loopback(), inbound, client))
        await crash(agent, controller, 1)
        await eventually(lambda: _good_holds(agent), within_s=25)
        await controller.apply(entities(direct_to_loopback(), inbound, client, new, newcomer))
        for count in (2, 3, 4):
            await crash(agent, controller, count)
        [event] = await eventually(lambda: controller.told("apply_reverted"))
        assert event.details["culprits"] == ["inbound 7002"]
        link = share_link(inbound, client, address="127.0.0.1", remark="t")
        async with XrayClient.from_link(link) as app:
            await eventually(lambda: passes(app, sink), within_s=20)
        beat = await eventually(lambda: next((b for b in reversed(controller.beats) if b.degraded_count), None))
        assert beat.xray.restarts_count >= 3


def _good_holds(agent: AgentProcess) -> bool:
    import sqlite3

    with sqlite3.connect(agent.state_dir / "state.db") as db:
        found = db.execute("SELECT COUNT(*) FROM entities WHERE slot = 'good' AND kind = 'inbound'").fetchone()[0]
    db.close()
    return bool(found)
