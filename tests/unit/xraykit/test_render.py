import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from xfleet_contracts.desired_state import ClientBody, EntityKey, InboundBody, OutboundBody, RuleBody, SettingsBody
from xfleet_xraykit import transports as transport_files
from xfleet_xraykit.generate import complete_inbound
from xfleet_xraykit.keys import (
    decode_base64url,
    is_uuid,
    new_password,
    new_reality_pair,
    new_shadowsocks_key,
    new_short_id,
    new_uuid,
    reality_public_key,
)
from xfleet_xraykit.links import client_config, parse_link, share_link
from xfleet_xraykit.lint import lint_inbound
from xfleet_xraykit.protocols import inbound_protocols, securities, transports
from xfleet_xraykit.render import render_config, typed_state
from xfleet_xraykit.transports import ws

UUID = "00000000-0000-4000-8000-000000000000"


def bodies_of(*entities: tuple[str, str, msgspec.Struct]) -> dict[EntityKey, bytes]:
    return {EntityKey(kind=kind, id=name): msgspec.json.encode(body) for kind, name, body in entities}  # pyright: ignore[reportArgumentType]


def test_an_empty_state_is_a_configuration_that_can_be_driven() -> None:
    config = render_config({}, api_socket="/run/x.sock")
    assert config["api"] == {
        "tag": "api",
        "listen": "/run/x.sock",
        "services": ["HandlerService", "StatsService", "RoutingService", "LoggerService"],
    }
    assert config["routing"] == {"domainStrategy": "AsIs", "rules": []}
    assert [each["tag"] for each in config["outbounds"]] == ["direct", "block"]
    assert config["policy"]["levels"]["0"]["statsUserOnline"] is True
    assert config["policy"]["system"]["statsInboundUplink"] is True
    assert config["log"] == {"loglevel": "warning", "access": "none"}


def test_the_whole_state_is_rendered_in_a_stable_order() -> None:
    stream = {"network": "ws", "wsSettings": {"path": "/a"}, "externalProxy": []}
    inbound = InboundBody(ref=7, listen="::1", port=443, protocol="vless", settings={"encryption": "none"},
                          stream_settings=stream, sniffing={"enabled": True})  # fmt: skip
    state = bodies_of(
        ("client", "4.7", ClientBody(client=4, inbound=7, uuid=UUID)),
        ("client", "3.7", ClientBody(client=3, inbound=7, uuid=UUID, flow="xtls-rprx-vision")),
        ("inbound", "7", inbound),
        ("outbound", "out", OutboundBody(tag="out", position=1, protocol="freedom", mux={"enabled": False})),
        ("outbound", "first", OutboundBody(tag="first", protocol="freedom", send_through="10.0.0.1")),
        ("rule", "late", RuleBody(position=2, rule={"network": "udp", "outboundTag": "out"})),
        ("rule", "early", RuleBody(position=1, rule={"network": "tcp", "outboundTag": "out"})),
        ("settings", "xray", SettingsBody(policy={"levels": {"0": {"connIdle": 5, "statsUserUplink": False}}},
                                          dns={"servers": ["1.1.1.1"]}, log_level="error")),
    )  # fmt: skip
    config = render_config(state, api_socket="/x", access_log="/a.log", error_log="/e.log")
    assert config["inbounds"] == [
        {
            "tag": "in-7",
            "listen": "::1",
            "port": 443,
            "protocol": "vless",
            "settings": {
                "decryption": "none",
                "clients": [
                    {"id": UUID, "flow": "xtls-rprx-vision", "email": "3.7", "level": 0},
                    {"id": UUID, "flow": "", "email": "4.7", "level": 0},
                ],
            },
            "streamSettings": {"network": "ws", "wsSettings": {"path": "/a"}},
            "sniffing": {"enabled": True},
        }
    ]
    assert [each["tag"] for each in config["outbounds"]] == ["first", "out", "block"]
    assert config["outbounds"][0]["sendThrough"] == "10.0.0.1"
    assert [each["ruleTag"] for each in config["routing"]["rules"]] == ["early", "late"]
    assert config["policy"]["levels"]["0"]["connIdle"] == 5
    assert config["policy"]["levels"]["0"]["statsUserUplink"] is True, "counting is not optional"
    assert config["log"] == {"loglevel": "error", "access": "/a.log", "error": "/e.log"}
    assert config["dns"] == {"servers": ["1.1.1.1"]}
    assert render_config(typed_state(dict(reversed(state.items()))), api_socket="/x")["inbounds"] == config["inbounds"]


def test_what_only_links_need_does_not_reach_xray() -> None:
    settings = {"target": "a.example:443", "settings": {"fingerprint": "firefox"}}
    stream = {"security": "reality", "realitySettings": settings}
    inbound = complete_inbound(InboundBody(ref=7, port=443, protocol="vless", settings={}, stream_settings=stream))
    [rendered] = render_config(bodies_of(("inbound", "7", inbound)), api_socket="/x")["inbounds"]
    assert "settings" not in rendered["streamSettings"]["realitySettings"]
    assert rendered["settings"]["clients"] == []


def test_protocols_transports_and_securities_are_found_by_their_files() -> None:
    assert set(inbound_protocols()) >= {"vless"}
    assert transports()["tcp"] is transports()["raw"]
    assert set(transports()) >= {"raw", "tcp", "ws"}
    assert set(securities()) >= {"none", "reality"}


def test_a_new_transport_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(ws.__file__).read_text()
    source = source.replace('("ws", "websocket")', '("httpupgrade",)').replace("wsSettings", "httpupgradeSettings")
    (tmp_path / "httpupgrade.py").write_text(source.replace('link_type = "ws"', 'link_type = "httpupgrade"'))
    monkeypatch.setattr(transport_files, "__path__", [*transport_files.__path__, str(tmp_path)])
    transports.cache_clear()
    try:
        stream = {"network": "httpupgrade", "httpupgradeSettings": {"path": "/a"}}
        inbound = InboundBody(ref=7, port=80, protocol="vless", settings={}, stream_settings=stream)
        assert lint_inbound(inbound) == []
        link = share_link(inbound, ClientBody(client=3, inbound=7, uuid=UUID), address="a.b", remark="")
        [outbound] = client_config(parse_link(link), socks_port=1)["outbounds"]
        assert outbound["streamSettings"] == {"security": "none", **stream}
    finally:
        transports.cache_clear()
        sys.modules.pop("xfleet_xraykit.transports.httpupgrade", None)


def test_keys_have_the_forms_xray_reads() -> None:
    pair = new_reality_pair()
    assert reality_public_key(pair.private_key) == pair.public_key != new_reality_pair().public_key
    raw = decode_base64url(pair.private_key)
    assert len(raw) == 32
    assert (raw[0] & 7, raw[31] & 192) == (0, 64)
    # RFC 7748, 6.1
    alice = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo"
    assert reality_public_key(alice) == "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"
    assert len(new_short_id()) == 16
    assert is_uuid(new_uuid())
    assert len(new_password()) == 24
    assert len(new_shadowsocks_key("2022-blake3-aes-128-gcm")) == 24
    for wrong in ("", "abc", "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=", "ä" * 43, "*" * 43):
        with pytest.raises(ValueError, match=r"REALITY|base64|[Nn]on-base64|padding|data characters"):
            reality_public_key(wrong)
    with pytest.raises(ValueError, match="not a method"):
        new_shadowsocks_key("rc4")


def test_the_panels_half_needs_neither_grpc_nor_protobuf() -> None:
    code = (
        "import sys, json\n"
        "import xfleet_xraykit.links, xfleet_xraykit.lint, xfleet_xraykit.render, xfleet_xraykit.generate\n"
        "import xfleet_xraykit.keys, xfleet_xraykit.counters\n"
        "from xfleet_xraykit.protocols import *\n"
        "inbound_protocols(), transports(), securities()\n"
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] in {'grpc', 'google', 'asyncio'}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert json.loads(done.stdout) == []
