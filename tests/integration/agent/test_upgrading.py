"""`agent.update`: what it refuses, and what an agent tells of an upgrade that was undone before it."""

import hashlib
import json
from pathlib import Path

import pytest

from harness.agent import AgentProcess, SmallController
from harness.broker import eventually
from harness.joining import mirror
from xfleet_contracts.errors import RemoteRefusal
from xfleet_contracts.installs import AGENT_UPDATE, AgentUpdate, AgentUpdating, Download

pytestmark = [pytest.mark.real_broker, pytest.mark.real_xray]


@pytest.fixture
def install_dir(tmp_path: Path) -> Path:
    """As a launcher keeps it, with an upgrade that it undid."""
    place = tmp_path / "install"
    (place / "releases" / "0.1.0").mkdir(parents=True)
    (place / "current").symlink_to("releases/0.1.0")
    (place / "launch").touch()
    told = {"version": "9.9", "previous": "0.1.0", "reason": "it ended 3 times", "at_ms": 1}
    (place / "failed.json").write_text(json.dumps(told))
    return place


@pytest.fixture
async def upgradable(agent: AgentProcess, install_dir: Path) -> AgentProcess:
    await agent.end()
    agent.settings["XFLEET_INSTALL_DIR"] = str(install_dir)
    await agent.start()
    return agent


async def test_an_agent_without_a_launcher_cannot_be_upgraded(agent: AgentProcess, controller: SmallController) -> None:
    assert agent.state_dir
    assert (await controller.heard()).upgradable is False
    order = AgentUpdate(
        version="9", wheel=Download(url="http://127.0.0.1:1/xfleet-9-py3-none-any.whl", sha256="0" * 64)
    )
    with pytest.raises(RemoteRefusal) as refused:
        await controller.order(AGENT_UPDATE, AgentUpdating, order)
    assert refused.value.remote_code == "install_unsupported"


async def test_what_cannot_become_a_release_is_refused_and_leaves_nothing(
    upgradable: AgentProcess, controller: SmallController, install_dir: Path, tmp_path: Path
) -> None:
    assert upgradable.state_dir
    assert (await controller.heard()).upgradable is True
    await eventually(lambda: controller.told("agent_update_failed"), within_s=20)
    assert controller.told("agent_update_failed")[0].details["reason"] == "it ended 3 times"
    assert not (install_dir / "failed.json").exists()
    served = tmp_path / "served"
    served.mkdir()
    name = "xfleet-9-py3-none-any.whl"
    (served / name).write_bytes(b"no wheel at all")
    right = hashlib.sha256(b"no wheel at all").hexdigest()
    with mirror(served, "127.0.0.1") as base:
        orders = {
            "checksum_wrong": AgentUpdate(version="9", wheel=Download(url=f"{base}/{name}", sha256="0" * 64)),
            "download_failed": AgentUpdate(version="9", wheel=Download(url=f"{base}/x/{name}", sha256=right)),
            "install_refused": AgentUpdate(version="9", wheel=Download(url=f"{base}/{name}", sha256=right)),
        }
        wrong = {
            "other version": AgentUpdate(version="8", wheel=Download(url=f"{base}/{name}", sha256=right)),
            "way out": AgentUpdate(version="../9", wheel=Download(url=f"{base}/{name}", sha256=right)),
            "no wheel": AgentUpdate(version="9", wheel=Download(url=f"{base}/..%2f..%2fx", sha256=right)),
            "file": AgentUpdate(version="9", wheel=Download(url=f"file:///etc/{name}", sha256=right)),
        }
        for code, order in [*orders.items(), *(("malformed", each) for each in wrong.values())]:
            with pytest.raises(RemoteRefusal) as refused:
                await controller.order(AGENT_UPDATE, AgentUpdating, order, timeout_s=60)
            assert refused.value.remote_code == code
    assert [each.name for each in (install_dir / "releases").iterdir()] == ["0.1.0"]
    assert not (install_dir / "update.json").exists()
    assert not (install_dir / "downloads").exists()
    assert (install_dir / "current").readlink().name == "0.1.0"
