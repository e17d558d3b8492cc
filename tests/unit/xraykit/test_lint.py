from typing import Any

import msgspec
import pytest

from xfleet_contracts.desired_state import ClientBody, EntityKey, InboundBody, OutboundBody, RuleBody, SettingsBody
from xfleet_xraykit.generate import complete_client, complete_inbound, default_flow
from xfleet_xraykit.lint import find_port_clash, lint_client, lint_inbound, lint_outbound, lint_settings, lint_state
from xfleet_xraykit.state import State, typed_state


def reality(**settings: Any) -> InboundBody:
    stream = {"network": "raw", "security": "reality", "realitySettings": {"target": "example.com:443"} | settings}
    return complete_inbound(
        InboundBody(ref=7, port=443, protocol="vless", settings={}, stream_settings=stream),
    )


def ws(**settings: Any) -> InboundBody:
    stream = {"network": "ws", "wsSettings": {"path": "/a"} | settings}
    return complete_inbound(InboundBody(ref=8, port=80, protocol="vless", settings={}, stream_settings=stream))


def changed(body: InboundBody, **fields: Any) -> InboundBody:
    return msgspec.structs.replace(body, **fields)


def problems(body: InboundBody) -> list[tuple[str, str]]:
    return [(each.path, each.code) for each in lint_inbound(body)]


def test_what_was_completed_is_fine() -> None:
    for inbound in (reality(), ws()):
        assert problems(inbound) == []
        assert lint_client(complete_client(ClientBody(client=3, inbound=inbound.ref), inbound), inbound) == []


def test_completing_keeps_what_was_given_and_generates_only_what_is_missing() -> None:
    first = reality(shortIds=["ab"], serverNames=["a.example"])
    settings = first.stream_settings["realitySettings"]
    assert (settings["shortIds"], settings["serverNames"]) == (["ab"], ["a.example"])
    assert complete_inbound(first) == first
    assert reality().stream_settings != reality().stream_settings
    assert reality().stream_settings["realitySettings"]["serverNames"] == ["example.com"]
    assert "serverNames" not in reality(target="127.0.0.1:443").stream_settings["realitySettings"]
    assert complete_inbound(changed(first, protocol="unheard")).protocol == "unheard"


def test_a_client_gets_vision_only_where_it_works() -> None:
    assert default_flow(reality()) == "xtls-rprx-vision"
    assert default_flow(ws()) == ""
    given = ClientBody(client=3, inbound=7, uuid="00000000-0000-4000-8000-000000000000")
    assert complete_client(given, reality()) == given


@pytest.mark.parametrize(
    ("settings", "path", "code"),
    [
        ({"shortIds": ["abc"]}, "shortIds[0]", "bad_short_id"),
        ({"shortIds": ["ab", "zz"]}, "shortIds[1]", "bad_short_id"),
        ({"shortIds": ["ab" * 9]}, "shortIds[0]", "bad_short_id"),
        ({"serverNames": ["*.example.com"]}, "serverNames[0]", "bad_server_name"),
        ({"privateKey": "short"}, "privateKey", "bad_private_key"),
        ({"target": "example.com"}, "target", "bad_target"),
        ({"target": ""}, "target", "bad_target"),
        ({"xver": 3}, "xver", "bad_xver"),
        ({"sortIds": ["ab"]}, "sortIds", "unknown_key"),
        ({"settings": {"fingerpint": "chrome"}}, "settings.fingerpint", "unknown_key"),
    ],
)
def test_wrong_reality_settings_are_named_by_path(settings: dict[str, Any], path: str, code: str) -> None:
    found = reality(**({"serverNames": ["example.com"]} | settings))
    assert problems(found) == [(f"stream_settings.realitySettings.{path}", code)]


@pytest.mark.parametrize(
    ("settings", "path", "code"),
    [
        ({"path": "chat"}, "path", "path_needs_slash"),
        ({"path": "/chat?ed=abc"}, "path", "bad_early_data"),
        ({"path": 5}, "path", "path_needs_slash"),
        ({"hots": "a"}, "hots", "unknown_key"),
        ({"headers": "Host: a"}, "headers", "wrong_type"),
    ],
)
def test_wrong_websocket_settings_are_named_by_path(settings: dict[str, Any], path: str, code: str) -> None:
    assert problems(ws(**settings)) == [(f"stream_settings.wsSettings.{path}", code)]


@pytest.mark.parametrize(
    ("fields", "path", "code"),
    [
        ({"port": 0}, "port", "bad_port"),
        ({"port": 70000}, "port", "bad_port"),
        ({"listen": "example.com"}, "listen", "bad_listen"),
        ({"protocol": "vles"}, "protocol", "unknown_protocol"),
        ({"settings": {"decryption": "yes"}}, "settings.decryption", "bad_decryption"),
        ({"settings": {"descryption": "none"}}, "settings.descryption", "unknown_key"),
        ({"settings": {"clients": [{"id": "x"}]}}, "settings.clients", "clients_elsewhere"),
        ({"settings": {"fallbacks": [{"dest": 80}]}}, "settings.fallbacks", "fallbacks_need_raw"),
        ({"stream_settings": {"network": "wss"}}, "stream_settings.network", "unknown_transport"),
        ({"stream_settings": {"security": "tsl"}}, "stream_settings.security", "unknown_security"),
        ({"stream_settings": {"newtork": "ws"}}, "stream_settings.newtork", "unknown_key"),
        ({"stream_settings": {"sockopt": {"trpoxy": "off"}}}, "stream_settings.sockopt.trpoxy", "unknown_key"),
        ({"sniffing": {"enable": True}}, "sniffing.enable", "unknown_key"),
        ({"sniffing": {"destOverride": ["http", "tsl"]}}, "sniffing.destOverride[1]", "unknown_sniffer"),
    ],
)
def test_wrong_inbounds_are_named_by_path(fields: dict[str, Any], path: str, code: str) -> None:
    assert (path, code) in problems(changed(ws(), **fields))


def test_a_misspelling_is_answered_with_the_nearest_known_word() -> None:
    [problem] = lint_inbound(reality(serverNames=["a"], sortIds=["ab"]))
    assert "Did you mean 'shortIds'?" in problem.reason
    [problem] = lint_inbound(changed(ws(), protocol="vles"))
    assert "Did you mean 'vless'?" in problem.reason


def test_reality_over_websocket_is_refused() -> None:
    stream = ws().stream_settings | reality().stream_settings | {"network": "ws"}
    assert ("stream_settings.security", "reality_transport") in problems(changed(ws(), stream_settings=stream))


@pytest.mark.parametrize(
    ("fields", "path", "code"),
    [
        ({"uuid": "abc"}, "uuid", "bad_uuid"),
        ({"uuid": "A0000000-0000-4000-8000-000000000000"}, "uuid", "bad_uuid"),
        ({"flow": "xtls-rprx-direct"}, "flow", "unknown_flow"),
        ({"flow": "xtls-rprx-vision"}, "flow", "vision_needs_raw_tls"),
    ],
)
def test_wrong_clients_are_named_by_path(fields: dict[str, str], path: str, code: str) -> None:
    client = msgspec.structs.replace(complete_client(ClientBody(client=3, inbound=8), ws()), **fields)
    assert [(each.path, each.code) for each in lint_client(client, ws())] == [(path, code)]


def test_vision_needs_a_security() -> None:
    plain = complete_inbound(InboundBody(ref=9, port=81, protocol="vless", settings={}))
    client = ClientBody(client=3, inbound=9, uuid="00000000-0000-4000-8000-000000000000", flow="xtls-rprx-vision")
    assert [each.code for each in lint_client(client, plain)] == ["vision_needs_raw_tls"]


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("", "", True),
        ("", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "10.0.0.1", True),
        ("::", "0.0.0.0", True),
        ("0.0.0.0", "::1", False),
        ("127.0.0.1", "127.0.0.2", False),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("/run/a.sock", "/run/b.sock", False),
        ("/run/a.sock", "/run/a.sock", True),
        ("/run/a.sock", "", False),
    ],
)
def test_two_inbounds_clash_when_their_addresses_overlap_on_a_port(one: str, other: str, clash: bool) -> None:
    first, second = changed(ws(), ref=1, listen=one), changed(ws(), ref=2, listen=other)
    assert find_port_clash(second, {1: first}) == (1 if clash else None)
    assert find_port_clash(first, {2: second}) == (2 if clash else None)
    found = [each for each in lint_state(State(inbounds={1: first, 2: second})) if each.code == "duplicate_port"]
    assert [each.key.id for each in found] == (["2"] if clash else [])
    assert all("inbound 1" in each.reason for each in found)


def test_problems_between_entities_are_named() -> None:
    inbound = ws()
    uuid = "00000000-0000-4000-8000-000000000000"
    state = State(
        inbounds={8: inbound},
        clients={
            8: {
                "3.8": ClientBody(client=3, inbound=8, uuid=uuid),
                "4.8": ClientBody(client=4, inbound=8, uuid=uuid),
                "wrong": ClientBody(client=5, inbound=8, uuid="00000000-0000-4000-8000-000000000001"),
            },
            9: {"3.9": ClientBody(client=3, inbound=9, uuid=uuid)},
        },
        outbounds=[OutboundBody(tag="api", protocol="freedom"), OutboundBody(tag="block", protocol="freedom")],
        rules=[
            ("a", RuleBody(rule={"network": "tcp", "outboundTag": "driect"})),
            ("b", RuleBody(rule={"inboundTag": ["in-9"], "outboundTag": "direct"})),
            ("c", RuleBody(rule={"outboundTag": "direct"})),
            ("d", RuleBody(rule={"network": "tcp"})),
            ("e", RuleBody(rule={"domian": ["a"], "network": "tcp", "outboundTag": "direct"})),
            ("blocked-3.8", RuleBody(rule={"network": "tcp", "outboundTag": "direct"})),
        ],
        settings=SettingsBody(
            log_level="loud",
            domain_strategy="Any",
            policy={"level": {}, "levels": {"0": {"statsUserUplnk": True}}, "system": {"statsInboundUp": True}},
            dns={"server": ["1.1.1.1"]},
        ),
    )
    found = {(each.key.kind, each.key.id, each.path, each.code) for each in lint_state(state)}
    assert found == {
        ("client", "4.8", "uuid", "duplicate_credential"),
        ("client", "wrong", "", "bad_id"),
        ("client", "3.9", "inbound", "inbound_missing"),
        ("outbound", "api", "tag", "reserved_tag"),
        ("outbound", "block", "protocol", "block_must_block"),
        ("rule", "a", "rule.outboundTag", "unknown_outbound"),
        ("rule", "b", "rule.inboundTag[0]", "unknown_inbound"),
        ("rule", "c", "rule", "rule_matches_nothing"),
        ("rule", "d", "rule.outboundTag", "rule_without_target"),
        ("rule", "e", "rule.domian", "unknown_key"),
        ("rule", "blocked-3.8", "", "reserved_tag"),
        ("settings", "xray", "log_level", "unknown_log_level"),
        ("settings", "xray", "domain_strategy", "unknown_domain_strategy"),
        ("settings", "xray", "policy.level", "unknown_key"),
        ("settings", "xray", "policy.levels.0.statsUserUplnk", "unknown_key"),
        ("settings", "xray", "policy.system.statsInboundUp", "unknown_key"),
        ("settings", "xray", "dns.server", "unknown_key"),
    }


def test_outbound_tags_must_be_countable() -> None:
    for tag in ("", "a b", "a>>>b"):
        assert [each.code for each in lint_outbound(OutboundBody(tag=tag, protocol="freedom"))] == ["bad_tag"]
    assert lint_settings(SettingsBody()) == []
    direct = OutboundBody(tag="direct", protocol="freedom", settings={"finalRules": [], "domainStategy": "UseIP"})
    assert [(each.path, each.code) for each in lint_outbound(direct)] == [("settings.domainStategy", "unknown_key")]


def test_an_unreadable_entity_is_reported_and_the_rest_is_read() -> None:
    good, bad = EntityKey(kind="inbound", id="8"), EntityKey(kind="client", id="3.8")
    unheard = EntityKey(kind="balloon", id="1")  # pyright: ignore[reportArgumentType]
    state = typed_state({good: msgspec.json.encode(ws()), bad: b'{"client": "x"}', unheard: b"?"})
    assert list(state.inbounds) == [8]
    assert [(each.key, each.code) for each in lint_state(state)] == [(bad, "unreadable")]


def test_an_entity_kept_under_anothers_name_is_left_out() -> None:
    moved = EntityKey(kind="client", id="4.8")
    client = complete_client(ClientBody(client=3, inbound=8), ws())
    state = typed_state({moved: msgspec.json.encode(client)})
    assert state.clients == {}
    assert [(each.key, each.code) for each in state.unreadable] == [(moved, "bad_id")]
