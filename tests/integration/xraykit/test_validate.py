import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.xray import free_port, new_client, reality_inbound, state_of, ws_inbound
from xfleet_contracts.desired_state import EntityKey, OutboundBody, RuleBody, SettingsBody
from xfleet_xraykit import wheel_child
from xfleet_xraykit.errors import ConfigRefused
from xfleet_xraykit.launcher import WheelLauncher
from xfleet_xraykit.render import render_config
from xfleet_xraykit.state import State
from xfleet_xraykit.validate import validate

pytestmark = pytest.mark.real_xray


def config_of(state: State, **options: Any) -> dict[str, Any]:
    return render_config(state, api_socket="@xfleet-validate", **options)


async def test_a_good_configuration_passes_while_its_ports_are_taken_and_opens_no_log(tmp_path: Path) -> None:
    inbound = ws_inbound(7)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", inbound.port))
        holder.listen()
        log = tmp_path / "error.log"
        config = config_of(state_of([(inbound, [new_client(3, inbound)])]), error_log=str(log))
        assert await validate(WheelLauncher(), config) == []
        assert not log.exists()


async def test_every_culprit_is_named_with_its_path() -> None:
    good, bad_key, bad_client = ws_inbound(1), reality_inbound(2, 443), ws_inbound(3)
    bad_key.stream_settings["realitySettings"]["privateKey"] = "nonsense"
    bad_version = reality_inbound(4, 443)
    bad_version.stream_settings["realitySettings"]["maxClientVer"] = "1.2.3.4.5"
    sick = msgspec.structs.replace(new_client(9, bad_client), uuid="not-a-uuid-but-much-longer-than-thirty-chars")
    clients = [*(new_client(ref, bad_client) for ref in range(1, 9)), sick]
    state = state_of([(good, [new_client(1, good)]), (bad_key, []), (bad_version, []), (bad_client, clients)])
    state.outbounds += [OutboundBody(tag="direct", protocol="freedom"), OutboundBody(tag="bad", protocol="junk")]
    state.rules += [
        ("fine", RuleBody(rule={"network": "udp", "outboundTag": "direct"})),
        ("geo", RuleBody(rule={"network": "tcp", "ip": ["geoip:nowhere"], "outboundTag": "direct"})),
    ]
    found = {(each.key, each.path) for each in await validate(WheelLauncher(), config_of(state))}
    assert found == {
        (EntityKey(kind="inbound", id="2"), "stream_settings.realitySettings"),
        (EntityKey(kind="inbound", id="4"), "stream_settings.realitySettings.maxClientVer"),
        (EntityKey(kind="client", id="9.3"), ""),
        (EntityKey(kind="outbound", id="bad"), ""),
        (EntityKey(kind="rule", id="geo"), "rule.ip"),
    }


async def test_broken_dns_is_named_as_a_setting() -> None:
    state = State(settings=SettingsBody(dns={"servers": [{"address": "1.1.1.1", "expectedIPs": ["geoip:nowhere"]}]}))
    [problem] = await validate(WheelLauncher(), config_of(state))
    assert (problem.key, problem.path) == (EntityKey(kind="settings", id="xray"), "dns")


async def test_a_search_that_takes_too_long_is_given_up() -> None:
    state = State(outbounds=[OutboundBody(tag="bad", protocol="junk")])
    with pytest.raises(ConfigRefused, match="within"):
        await validate(WheelLauncher(), config_of(state), timeout_s=0.01)


async def test_where_binding_cannot_be_denied_xray_is_tried_on_ports_nobody_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blind = tmp_path / "wheel_child.py"
    source = Path(wheel_child.__file__).read_text()
    blind.write_text(source.replace('"x86_64":', '"elsewhere":').replace('"aarch64":', '"nowhere":'))
    monkeypatch.setattr(wheel_child, "__file__", str(blind))
    inbound = ws_inbound(7, port=free_port())
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", inbound.port))
        holder.listen()
        good = config_of(state_of([(inbound, [new_client(3, inbound)])]))
        assert (await WheelLauncher().probe(good)).ok
    bad = config_of(State(outbounds=[OutboundBody(tag="bad", protocol="junk")]))
    assert not (await WheelLauncher().probe(bad)).ok


async def test_ten_thousand_clients_are_judged_in_one_go() -> None:
    inbound = ws_inbound(7)
    state = state_of([(inbound, [new_client(ref, inbound) for ref in range(1, 10_001)])])
    assert (await WheelLauncher().probe(config_of(state))).ok
