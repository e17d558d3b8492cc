"""Xray from a release archive: fetched, checked, tried out beside the old one, and never worse than before."""

import asyncio
import signal
import stat
import zipfile
from collections.abc import AsyncIterator
from io import BytesIO

import pytest

from harness.agent import AgentProcess, SmallController, agent_process, entities
from harness.broker import FleetBroker, eventually
from harness.proxies import running_proxy
from harness.releases import AFTER_A_WHILE, AT_ONCE, REFUSING, Mirror, archive, program
from harness.xray import Sink, XrayClient, direct_to_loopback, new_client, passes, transfer, ws_inbound
from xfleet_contracts.errors import RemoteRefusal
from xfleet_contracts.installs import BUNDLED, Download, XrayInstall, XrayInstalled
from xfleet_xraykit.links import share_link


@pytest.fixture
async def agent(broker: FleetBroker, controller: SmallController) -> AsyncIterator[AgentProcess]:
    async with agent_process(broker, trial_s="1") as running:
        await controller.heard()
        yield running


@pytest.fixture
async def mirror() -> AsyncIterator[Mirror]:
    async with Mirror.running() as running:
        yield running


async def install(controller: SmallController, order: XrayInstall) -> XrayInstalled:
    return await controller.order("xray.install", XrayInstalled, order)


async def refusal_of(controller: SmallController, order: XrayInstall) -> RemoteRefusal:
    with pytest.raises(RemoteRefusal) as caught:
        await install(controller, order)
    return caught.value


async def test_a_release_takes_over_and_is_switched_back_and_nobody_is_cut(
    agent: AgentProcess, controller: SmallController, mirror: Mirror, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(501, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    link = share_link(inbound, client, address="127.0.0.1", remark="t")
    async with XrayClient.from_link(link, send_through="127.0.0.2") as app:
        first = await transfer(app, sink)
        bundled = (await controller.heard()).xray
        assert bundled.source == BUNDLED
        done = await install(controller, mirror.xray("99.1.2", geoip=b"\n\0"))
        assert (done.version, done.previous) == ("99.1.2", bundled.version)
        assert done.available == (BUNDLED, "99.1.2")
        beat = await eventually(
            lambda: next((each.xray for each in controller.beats[-3:] if each.xray.source == "99.1.2"), None)
        )
        assert beat.version == "99.1.2"
        assert beat.start_id != bundled.start_id
        second = await transfer(app, sink)
        assert len(agent.xrays()) == 2 or beat.pid, "the old one may still finish what it carries"
        # an agent that starts again adopts it and still knows what it is
        await agent.end(signal.SIGKILL)
        await agent.start()
        again = await controller.heard()
        assert (again.xray.start_id, again.xray.source, again.xray.version) == (beat.start_id, "99.1.2", "99.1.2")
        back = await install(controller, XrayInstall(version=BUNDLED))
        assert (back.version, back.previous) == (bundled.version, "99.1.2")
        third = await transfer(app, sink)
        forth = await install(controller, XrayInstall(version="v99.1.2"))
        assert forth.version == "99.1.2"
        assert len(mirror.asked) == 1, "a version that is kept is not fetched again"
    sent = tuple(sum(moved) for moved in zip(first, second, third, strict=True))
    await eventually(lambda: controller.ledger.of_client(501) == sent)
    assert controller.ledger.gaps == []


async def test_releases_that_do_not_work_here_change_nothing(
    agent: AgentProcess, controller: SmallController, mirror: Mirror, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(501, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    before = (await controller.heard()).xray
    link = share_link(inbound, client, address="127.0.0.1", remark="t")
    async with XrayClient.from_link(link) as app:
        assert await passes(app, sink)
        for order in (
            mirror.xray("99.1.2", runs=AT_ONCE),
            mirror.xray("99.1.2", runs=AFTER_A_WHILE, lives_s=0.5),
            mirror.xray("99.1.2", tests=REFUSING),
            XrayInstall(version="99.1.2", archive=mirror.offer(archive({"xray": b"\x7fELF junk"}))),
        ):
            refusal = await refusal_of(controller, order)
            assert refusal.remote_code == "install_refused"
        assert await passes(app, sink)
    after = (await controller.heard()).xray
    assert (after.start_id, after.source, after.version) == (before.start_id, BUNDLED, before.version)
    await eventually(lambda: [each.start_id for each in agent.xrays()] == [before.start_id])
    # one that an operator stopped stays stopped, and starts as what was chosen meanwhile
    assert (await controller.ask("xray.stop")).ok
    assert (await install(controller, mirror.xray("99.1.3"))).version == "99.1.3"
    assert agent.xrays() == []
    assert (await controller.ask("xray.start")).ok
    beat = await controller.heard()
    assert (beat.xray.status, beat.xray.source) == ("running", "99.1.3")


async def test_an_xray_that_dies_soon_after_it_took_over_gives_way_to_the_one_before(
    agent: AgentProcess, controller: SmallController, mirror: Mirror, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(501, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    await install(controller, mirror.xray("99.1.2", runs=AFTER_A_WHILE, lives_s=2.5))
    [told] = await eventually(lambda: controller.told("xray_rolled_back"))
    assert told.details["version"] == "99.1.2"
    beat = await eventually(
        lambda: next((each.xray for each in controller.beats[-1:] if each.xray.source == BUNDLED), None)
    )
    assert beat.status in {"running", "crashed", "starting"}
    link = share_link(inbound, client, address="127.0.0.1", remark="t")
    async with XrayClient.from_link(link) as app:
        await eventually(lambda: passes(app, sink))


async def test_mirrors_and_archives_that_cannot_be_trusted_are_refused_in_words(
    agent: AgentProcess, controller: SmallController, mirror: Mirror
) -> None:
    before = (await controller.heard()).xray
    good = mirror.offer(archive({"xray": program("9.9.9")}))
    lost = Download(url=f"http://127.0.0.1:{mirror.port}/lost.zip", sha256=good.sha256)
    silent = Download(url="http://127.0.0.1:9/x.zip", sha256=good.sha256)
    other = Download(url=good.url, sha256="0" * 64)
    mirror.redirects |= {"/away.zip": "file:///etc/passwd", "/round.zip": "/round.zip"}
    for file, code, word in (
        (lost, "download_failed", "404"),
        (silent, "download_failed", "refused"),
        (other, "checksum_wrong", "SHA-256"),
        (Download(url=f"http://127.0.0.1:{mirror.port}/away.zip", sha256=good.sha256), "download_failed", "302"),
        (Download(url=f"http://127.0.0.1:{mirror.port}/round.zip", sha256=good.sha256), "download_failed", "redirect"),
        (Download(url="file:///etc/passwd", sha256=good.sha256), "malformed", "http"),
        (Download(url="http://[::1/x", sha256=good.sha256), "malformed", "http"),
        (Download(url="http://exa mple.invalid/\r\nx", sha256=good.sha256), "download_failed", ""),
        (Download(url=good.url, sha256="12"), "malformed", "64"),
        (mirror.offer(b"no archive at all"), "install_refused", "cannot be read"),
        (mirror.offer(archive({"xray": program("1.2.3")})), "install_refused", "calls itself 1.2.3"),
        (mirror.offer(archive({"../xray": b"", "xray": b""})), "install_refused", "outside"),
        (mirror.offer(archive({"/etc/cron.d/x": b"", "xray": b""})), "install_refused", "outside"),
        (mirror.offer(archive({"bin/xray": b""})), "install_refused", "no release"),
        (mirror.offer(archive({f"{n}": b"" for n in range(100)})), "install_refused", "100 files"),
        (mirror.offer(bomb()), "install_refused", "larger"),
        (mirror.offer(linked()), "install_refused", "plain file"),
    ):
        refusal = await refusal_of(controller, XrayInstall(version="9.9.9", archive=file))
        assert (refusal.remote_code, word in refusal.text) == (code, True), refusal.text
    mirror.cut_after_bytes = 40
    refusal = await refusal_of(controller, XrayInstall(version="9.9.9", archive=good))
    assert "broke off after 40" in refusal.text
    assert (await refusal_of(controller, XrayInstall(version="7.7"))).remote_code == "version_not_installed"
    assert (await refusal_of(controller, XrayInstall(version="../../x"))).remote_code == "malformed"
    assert (await controller.heard()).xray.start_id == before.start_id
    assert list((agent.state_dir / "incoming").iterdir()) == []
    assert list((agent.state_dir / "xray").iterdir()) == []


def bomb() -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as opened, opened.open("xray", "w") as member:
        for _ in range(200):
            member.write(bytes(1024 * 1024))
    return out.getvalue()


def linked() -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as opened:
        info = zipfile.ZipInfo("xray")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(info, "/bin/sh")
    return out.getvalue()


async def test_an_agent_killed_in_the_middle_of_an_install_leaves_the_old_one_in_place(
    agent: AgentProcess, controller: SmallController, mirror: Mirror, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(501, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    before = (await controller.heard()).xray
    link = share_link(inbound, client, address="127.0.0.1", remark="t")
    async with XrayClient.from_link(link) as app:
        # while it fetches
        mirror.hold = asyncio.Event()
        asked = asyncio.create_task(controller.ask("xray.install", mirror.xray("99.1.2"), timeout_s=1))
        await eventually(lambda: mirror.asked)
        await eventually(lambda: list((agent.state_dir / "incoming").iterdir()))
        await restart(agent)
        mirror.hold.set()
        mirror.hold = None
        with pytest.raises(Exception, match="no answer"):
            await asked
        await controller.heard()
        assert list((agent.state_dir / "xray").iterdir()) == []
        # while the new one is on trial beside the old one
        asked = asyncio.create_task(controller.ask("xray.install", mirror.xray("99.1.2"), timeout_s=1))
        await eventually(lambda: len(agent.xrays()) == 2)
        await restart(agent)
        with pytest.raises(Exception, match="no answer"):
            await asked
        beat = await controller.heard()
        assert (beat.xray.start_id, beat.xray.source) == (before.start_id, BUNDLED)
        await eventually(lambda: passes(app, sink))
        assert (await install(controller, XrayInstall(version="99.1.2"))).version == "99.1.2"
        assert await passes(app, sink)


async def restart(agent: AgentProcess) -> None:
    await agent.end(signal.SIGKILL)
    await agent.start()


async def test_a_release_comes_through_the_agents_proxy(
    broker: FleetBroker, controller: SmallController, mirror: Mirror
) -> None:
    async with (
        running_proxy("socks5", login=("me", "secret")) as proxy,
        agent_process(broker, trial_s="0.2", broker_proxy=proxy.setting) as agent,
    ):
        await controller.heard()
        assert (await install(controller, mirror.xray("99.1.2"))).version == "99.1.2"
        assert proxy.asked[-1] == f"127.0.0.1:{mirror.port}"
        proxy.refusing = True
        refusal = await refusal_of(controller, mirror.xray("99.1.3"))
        assert refusal.remote_code == "download_failed"
        assert "secret" not in refusal.text + agent.log()


async def test_orders_that_pile_up_are_refused_and_nothing_else_waits_for_them(
    agent: AgentProcess, controller: SmallController, mirror: Mirror
) -> None:
    mirror.hold = asyncio.Event()
    order = mirror.xray("99.1.2")
    asked = [asyncio.create_task(controller.ask("xray.install", order)) for _ in range(20)]
    done, waiting = await asyncio.wait(asked, timeout=1)
    codes = [reply.error.code for task in done if (reply := task.result()).error is not None]
    assert codes == ["rate_limited"] * 18
    assert (await controller.ask("health")).ok
    # an agent that is told to end does so, and leaves no Xray of a release that came too late
    ending = asyncio.create_task(agent.end(signal.SIGINT))
    await asyncio.sleep(0.3)
    mirror.hold.set()
    assert await ending == 0
    assert agent.xrays() == []
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
