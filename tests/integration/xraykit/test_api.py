import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import msgspec
import pytest

from harness.xray import (
    Sink,
    XrayClient,
    XrayServer,
    direct_to_loopback,
    free_port,
    new_client,
    passes,
    reality_inbound,
    state_of,
    ws_inbound,
)
from xfleet_contracts.desired_state import RuleBody
from xfleet_xraykit.accounts import Account
from xfleet_xraykit.api import XrayApi
from xfleet_xraykit.errors import (
    AccountMismatch,
    ConfigRefused,
    EmptyOrder,
    InboundUnknown,
    RuleNeedsRestart,
    XrayDown,
    XrayHung,
    XrayRefused,
)
from xfleet_xraykit.links import share_link
from xfleet_xraykit.process import is_running, wait_exit
from xfleet_xraykit.protocols import inbound_protocols
from xfleet_xraykit.render import render_inbound
from xfleet_xraykit.state import State

pytestmark = pytest.mark.real_xray
VLESS = inbound_protocols()["vless"]
TROJAN = Account("xray.proxy.trojan.Account", {1: "secret"})


async def test_adding_and_removing_a_user_twice_is_the_same_as_once() -> None:
    inbound = ws_inbound(7)
    client = new_client(3, inbound)
    account = VLESS.account(client, inbound)
    async with XrayServer.running(state_of([(inbound, [])])) as server:
        for _ in range(2):
            await server.api.add_user("in-7", "vless", "3.7", account)
        assert account.covers((await server.api.inbound_users("in-7"))["3.7"])
        for _ in range(2):
            await server.api.remove_user("in-7", "3.7")
        assert await server.api.inbound_users("in-7") == {}


async def test_adding_a_user_with_another_credential_replaces_it() -> None:
    inbound = ws_inbound(7)
    old, new = new_client(3, inbound), new_client(3, inbound)
    async with XrayServer.running(state_of([(inbound, [old])])) as server:
        await server.api.add_user("in-7", "vless", "3.7", VLESS.account(new, inbound))
        running = await server.api.find_user("in-7", "3.7")
        assert running is not None
        assert VLESS.account(new, inbound).covers(running)
        assert not VLESS.account(old, inbound).covers(running)


async def test_what_would_crash_xray_is_refused_before_it_is_sent() -> None:
    inbound = ws_inbound(7)
    account = VLESS.account(new_client(3, inbound), inbound)
    async with XrayServer.running(state_of([(inbound, [])])) as server:
        with pytest.raises(AccountMismatch):
            await server.api.add_user("in-7", "vless", "3.7", TROJAN)
        with pytest.raises(AccountMismatch):
            await server.api.add_user("in-7", "trojan", "3.7", TROJAN)
        with pytest.raises(InboundUnknown):
            await server.api.add_user("in-8", "vless", "3.8", account)
        with pytest.raises(EmptyOrder):
            await server.api.add_user("in-7", "vless", "", account)
        with pytest.raises(EmptyOrder):
            await server.api.remove_user("in-7", "")
        with pytest.raises(EmptyOrder):
            await server.api.block_user("")
        with pytest.raises(EmptyOrder):
            await server.api.add_rule({"outboundTag": "direct", "network": "tcp"})
        for nothing in ({}, {"tag": "in-9"}):
            with pytest.raises((ConfigRefused, EmptyOrder)):
                await server.api.add_inbound(nothing)
            with pytest.raises((ConfigRefused, EmptyOrder)):
                await server.api.add_outbound(nothing)
        await server.api.set_rules([])
        assert is_running(server.started)
        assert await server.api.list_inbounds() == ["in-7"]
        assert await server.api.list_outbounds() == ["block", "direct"]


async def test_an_account_is_refused_by_what_the_inbound_really_speaks() -> None:
    port = free_port()
    trojan = {"tag": "in-9", "listen": "127.0.0.1", "port": port, "protocol": "trojan", "settings": {"clients": []}}
    inbound = ws_inbound(9)
    async with XrayServer.running(State()) as server:
        await server.api.add_inbound(trojan)
        with pytest.raises(AccountMismatch, match="does not speak vless"):
            await server.api.add_user("in-9", "vless", "3.9", VLESS.account(new_client(3, inbound), inbound))
        assert is_running(server.started)


async def test_a_busy_port_is_said_in_xrays_own_words_and_leaves_nothing_behind() -> None:
    inbound = ws_inbound(7)
    async with XrayServer.running(State()) as server:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", inbound.port))
            holder.listen()
            with pytest.raises(XrayRefused, match="address already in use"):
                await server.api.add_inbound(render_inbound(inbound, {}))
        assert await server.api.list_inbounds() == []
        await server.api.add_inbound(render_inbound(inbound, {}))
        assert await server.api.list_inbounds() == ["in-7"]


async def test_an_inbound_added_hot_listens_where_it_was_told_to() -> None:
    everywhere = msgspec.structs.replace(ws_inbound(7), listen="")
    second = msgspec.structs.replace(ws_inbound(8), listen="127.0.0.5")
    async with XrayServer.running(State()) as server:
        for inbound in (everywhere, second):
            await server.api.add_inbound(render_inbound(inbound, {}))
        socket.create_connection(("127.0.0.3", everywhere.port)).close()
        socket.create_connection(("::1", everywhere.port)).close()
        socket.create_connection(("127.0.0.5", second.port)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", second.port))
        await server.api.remove_inbound("in-8")
        await server.api.remove_inbound("in-8")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.5", second.port))


async def test_an_inbound_that_already_runs_is_not_opened_twice() -> None:
    inbound = ws_inbound(7)
    async with XrayServer.running(state_of([(inbound, [])])) as server:
        with pytest.raises(XrayRefused, match="already runs"):
            await server.api.add_inbound(render_inbound(inbound, {}))
        socket.create_connection(("127.0.0.1", inbound.port)).close()


async def test_outbounds_come_and_go() -> None:
    async with XrayServer.running(State()) as server:
        await server.api.add_outbound({"tag": "second", "protocol": "freedom", "settings": {}})
        assert await server.api.list_outbounds() == ["block", "direct", "second"]
        for _ in range(2):
            await server.api.remove_outbound("second")
        assert await server.api.list_outbounds() == ["block", "direct"]


async def test_rules_added_hot_decide_where_streams_go() -> None:
    async with Sink() as sink:
        inbound = ws_inbound(7)
        client, other = new_client(3, inbound), new_client(4, inbound)
        rules = [
            {"ruleTag": "port", "ip": ["127.0.0.0/8"], "port": str(sink.port), "user": ["4.7"], "outboundTag": "block"},
            {"ruleTag": "names", "domain": ["domain:example.com", "full:a.test"], "outboundTag": "block"},
        ]
        async with (
            XrayServer.running(state_of([(inbound, [client, other])])) as server,
            XrayClient.from_link(share_link(inbound, client, address="127.0.0.1", remark="")) as one,
            XrayClient.from_link(share_link(inbound, other, address="127.0.0.1", remark="")) as two,
        ):
            assert await passes(two, sink)
            await server.api.set_rules(rules)
            assert [rule.rule_tag for rule in await server.api.list_rules()] == ["port", "names"]
            assert await passes(one, sink)
            assert not await passes(two, sink, timeout_s=1)
            await server.api.remove_rule("port")
            await server.api.remove_rule("port")
            assert await passes(two, sink)
            await server.api.add_rule(rules[0])
            assert [rule.rule_tag for rule in await server.api.list_rules()] == ["names", "port"]
            assert not await passes(two, sink, timeout_s=1)


async def test_blocks_stay_in_front_of_rules_and_are_known_to_a_new_connection() -> None:
    state = State(rules=[("all", RuleBody(rule={"network": "tcp,udp", "outboundTag": "direct"}))])
    async with XrayServer.running(state) as server:
        await server.api.set_rules([{"ruleTag": "all", "network": "tcp,udp", "outboundTag": "direct"}])
        await server.api.block_user("3.7")
        await server.api.block_user("3.7")
        successor = XrayApi(server.started.api_socket, converter=server.api._converter)
        assert await successor.blocked_users() == {"3.7"}
        await successor.set_rules([{"ruleTag": "other", "network": "udp", "outboundTag": "direct"}])
        assert [rule.rule_tag for rule in await successor.list_rules()] == ["blocked-3.7", "other"]
        await successor.set_rules([], blocked=())
        assert await successor.list_rules() == []
        await successor.close()


async def test_a_rule_xray_can_only_load_at_its_start_is_refused_before_anything_changes() -> None:
    async with XrayServer.running(State()) as server:
        await server.api.add_rule({"ruleTag": "a", "network": "tcp", "outboundTag": "direct"})
        with pytest.raises(RuleNeedsRestart, match="process"):
            await server.api.set_rules([{"ruleTag": "b", "process": ["curl"], "outboundTag": "direct"}])
        assert [rule.rule_tag for rule in await server.api.list_rules()] == ["a"]


async def test_rules_xray_does_not_take_change_nothing() -> None:
    async with XrayServer.running(State()) as server:
        good = {"ruleTag": "a", "network": "tcp", "outboundTag": "direct"}
        await server.api.set_rules([good])
        for bad in (
            {"ruleTag": "a", "network": "udp", "outboundTag": "direct"},
            {"ruleTag": "b", "domain": ["regexp:("], "outboundTag": "direct"},
            {"ruleTag": "b", "ip": ["300.0.0.1"], "outboundTag": "direct"},
            {"ruleTag": "b", "ip": ["geoip:nowhere"], "outboundTag": "direct"},
            {"ruleTag": "b", "port": "70000", "outboundTag": "direct"},
            {"ruleTag": "b", "network": "tpc", "outboundTag": "direct"},
            {"ruleTag": "b", "outboundTag": "direct"},
            {"ruleTag": "b", "network": "tcp", "balancerTag": "nobody"},
        ):
            with pytest.raises(ConfigRefused):
                await server.api.set_rules([good, bad])
            assert [rule.rule_tag for rule in await server.api.list_rules()] == ["a"]


async def test_every_condition_that_can_be_loaded_hot_is_taken() -> None:
    rule = {
        "ruleTag": "all", "outboundTag": "direct", "domain": ["keyword:a", "b.example"], "ip": ["::1", "!10.0.0.0/8"],
        "sourceIP": ["10.0.0.1"], "localIP": ["10.0.0.2"], "port": "53,1000-2000", "sourcePort": 53, "localPort": 443,
        "network": "tcp,udp", "user": ["3.7", "regexp:^4"], "inboundTag": ["in-7"], "protocol": ["tls"],
        "attrs": {":method": "GET"}, "vlessRoute": "1-9",
    }  # fmt: skip
    async with XrayServer.running(State()) as server:
        await server.api.set_rules([rule])
        assert [each.rule_tag for each in await server.api.list_rules()] == ["all"]


async def test_many_clients_are_blocked_in_one_step() -> None:
    async with XrayServer.running(State()) as server:
        await server.api.add_rule({"ruleTag": "a", "network": "tcp", "outboundTag": "direct"})
        emails = {f"{ref}.7" for ref in range(1, 1001)}
        await server.api.block_users(emails)
        assert await server.api.blocked_users() == emails
        assert (await server.api.list_rules())[-1].rule_tag == "a"
        await server.api.set_rules([], blocked=["1.7"])
        assert await server.api.blocked_users() == {"1.7"}


async def test_an_inbound_on_a_unix_socket_is_opened_hot(short_dir: Path) -> None:
    path = short_dir / "in.sock"
    inbound = msgspec.structs.replace(ws_inbound(7), listen=str(path), port=0)
    async with XrayServer.running(State()) as server:
        await server.api.add_inbound(render_inbound(inbound, {}))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


async def test_a_renamed_log_file_is_opened_anew(tmp_path: Path) -> None:
    log = tmp_path / "error.log"
    async with XrayServer.running(State(), error_log=str(log)) as server:
        log.rename(tmp_path / "error.log.1")
        await server.api.restart_logger()
        assert log.exists()


async def test_a_frozen_xray_is_hung_and_a_dead_one_is_down() -> None:
    async with XrayServer.running(State()) as server:
        os.kill(server.started.pid, signal.SIGSTOP)
        with pytest.raises(XrayHung):
            await server.api.sys_stats(timeout_s=0.3)
        os.kill(server.started.pid, signal.SIGCONT)
        assert (await server.api.sys_stats()).memory_bytes > 0
        os.kill(server.started.pid, signal.SIGKILL)
        assert await wait_exit(server.started) == -signal.SIGKILL
        with pytest.raises(XrayDown):
            await server.api.query_counters()


async def test_a_call_whose_connection_is_closed_under_it_says_so_and_cancels_nobody() -> None:
    async with XrayServer.running(State()) as server:
        await server.api.sys_stats()
        os.kill(server.started.pid, signal.SIGSTOP)
        asked = asyncio.create_task(server.api.query_counters())
        await asyncio.sleep(0.1)
        await server.api.close()
        with pytest.raises(XrayDown):
            await asked
        cancelled = asyncio.create_task(server.api.query_counters())
        await asyncio.sleep(0.1)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        os.kill(server.started.pid, signal.SIGCONT)


async def test_ten_thousand_clients_are_read_in_one_answer() -> None:
    inbound = ws_inbound(7)
    clients = [new_client(ref, inbound) for ref in range(1, 10_001)]
    async with XrayServer.running(state_of([(inbound, clients)])) as server:
        users = await server.api.inbound_users("in-7")
        assert len(users) == 10_000
        extra = new_client(20_000, inbound)
        before = time.monotonic()
        await server.api.add_user("in-7", "vless", "20000.7", VLESS.account(extra, inbound))
        assert time.monotonic() - before < 5
        assert len(await server.api.inbound_users("in-7")) == 10_001


async def test_a_reality_inbound_added_hot_keeps_its_users() -> None:
    inbound = reality_inbound(7, 443)
    client = new_client(3, inbound)
    async with XrayServer.running(State(outbounds=[direct_to_loopback()])) as server:
        await server.api.add_inbound(render_inbound(inbound, {"3.7": client}))
        running = await server.api.inbound_users("in-7")
        assert VLESS.account(client, inbound).covers(running["3.7"])
        with pytest.raises(InboundUnknown):
            await server.api.inbound_users("in-8")
