from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xfleet_contracts.desired_state import ClientBody, InboundBody
from xfleet_xraykit.generate import complete_inbound
from xfleet_xraykit.keys import reality_public_key
from xfleet_xraykit.links import (
    LinkImpossible,
    LinkUnreadable,
    ParsedLink,
    client_config,
    format_link,
    parse_link,
    share_link,
)

UUID = "6b1f6a52-9a3c-4c8e-8a53-0a8a7d2c1f00"
PRIVATE_KEY = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo"
HOSTS = st.one_of(
    st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z]{2,5}){1,2}", fullmatch=True),
    st.ip_addresses().map(str),
)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]))

PARAMS = st.dictionaries(st.from_regex("[a-z]{1,8}", fullmatch=True), TEXT)


def reality(**extra: Any) -> InboundBody:
    settings = {"target": "a.example:443", "serverNames": ["a.example"], "privateKey": PRIVATE_KEY, "shortIds": ["ab"]}
    stream = {"network": "raw", "security": "reality", "realitySettings": settings | extra}
    return InboundBody(ref=7, port=8443, protocol="vless", settings={}, stream_settings=stream)


def ws(**settings: Any) -> InboundBody:
    stream = {"network": "ws", "wsSettings": settings}
    return InboundBody(ref=8, port=80, protocol="vless", settings={}, stream_settings=stream)


def test_a_reality_link_is_written_as_apps_know_it() -> None:
    client = ClientBody(client=3, inbound=7, uuid=UUID, flow="xtls-rprx-vision")
    link = share_link(reality(), client, address="vpn.example.com", remark="my server / 1")
    public = reality_public_key(PRIVATE_KEY)
    spx = parse_link(link).params["spx"]
    assert link == (
        f"vless://{UUID}@vpn.example.com:8443?encryption=none&flow=xtls-rprx-vision&fp=chrome&pbk={public}"
        f"&security=reality&sid=ab&sni=a.example&spx=%2F{spx[1:]}&type=tcp#my%20server%20%2F%201"
    )
    assert len(spx) == 16
    assert PRIVATE_KEY not in link


def test_a_websocket_link_carries_path_and_host() -> None:
    client = ClientBody(client=3, inbound=8, uuid=UUID)
    link = share_link(ws(path="/a b", host="cdn.example"), client, address="2001:db8::1", remark="ё", port=443)
    assert link == (
        f"vless://{UUID}@[2001:db8::1]:443?encryption=none&host=cdn.example&path=%2Fa+b&security=none&type=ws#%D1%91"
    )
    assert share_link(ws(headers={"Host": "h.example"}), client, address="a.b", remark="").count("host=h.example") == 1


def test_a_client_always_gets_the_same_name_and_short_id() -> None:
    inbound = reality(serverNames=["a.example", "b.example"], shortIds=["ab", "cd", ""])
    links = {
        share_link(inbound, ClientBody(client=ref, inbound=7, uuid=UUID), address="a.b", remark="")
        for ref in (1, 2, 3, 4, 5, 6)
        for _ in range(3)
    }
    assert len(links) == 6


def test_the_operators_own_fingerprint_and_name_win() -> None:
    inbound = reality(settings={"fingerprint": "firefox", "serverName": "c.example"})
    params = parse_link(
        share_link(inbound, ClientBody(client=3, inbound=7, uuid=UUID), address="a.b", remark="")
    ).params
    assert (params["fp"], params["sni"]) == ("firefox", "c.example")


@given(
    HOSTS, st.integers(1, 65535), TEXT, st.uuids(), st.dictionaries(st.from_regex("[a-z]{1,8}", fullmatch=True), TEXT)
)
def test_every_link_reads_back_as_it_was_written(host: str, port: int, remark: str, user: Any, params: Any) -> None:
    link = ParsedLink("vless", str(user), host, port, params, remark)
    assert parse_link(format_link(link)) == link


@given(TEXT)
def test_any_user_part_survives(user: str) -> None:
    link = ParsedLink("vless", user or "x", "a.b", 1, {}, "")
    assert parse_link(format_link(link)) == link


@given(st.sampled_from(["/a", "/", "/чат?ed=2048", "/a&b=c#d"]), st.sampled_from(["", "h.example"]), TEXT)
def test_a_link_leads_to_the_stream_settings_of_its_inbound(path: str, host: str, remark: str) -> None:
    inbound = ws(path=path, host=host)
    link = share_link(inbound, ClientBody(client=3, inbound=8, uuid=UUID), address="a.b", remark=remark)
    [outbound] = client_config(parse_link(link), socks_port=1080)["outbounds"]
    assert outbound["streamSettings"] == {
        "network": "ws",
        "security": "none",
        "wsSettings": {"path": path} | ({"host": host} if host else {}),
    }


def test_a_reality_link_is_all_a_client_needs() -> None:
    inbound = complete_inbound(reality())
    client = ClientBody(client=3, inbound=7, uuid=UUID, flow="xtls-rprx-vision")
    link = parse_link(share_link(inbound, client, address="::1", remark=""))
    config = client_config(link, socks_port=1080, send_through="127.0.0.2", mux=True)
    [outbound] = config["outbounds"]
    assert outbound["settings"]["vnext"] == [
        {"address": "::1", "port": 8443, "users": [{"id": UUID, "encryption": "none", "flow": "xtls-rprx-vision"}]}
    ]
    assert outbound["streamSettings"]["realitySettings"]["password"] == reality_public_key(PRIVATE_KEY)
    assert outbound["sendThrough"] == "127.0.0.2"
    assert outbound["mux"]["enabled"]


def test_a_raw_link_can_look_like_http() -> None:
    header = {"type": "http", "request": {"path": ["/a", "/b"], "headers": {"Host": ["h.example"]}}}
    inbound = InboundBody(
        ref=8, port=80, protocol="vless", settings={}, stream_settings={"tcpSettings": {"header": header}}
    )
    link = parse_link(share_link(inbound, ClientBody(client=3, inbound=8, uuid=UUID), address="a.b", remark=""))
    assert (link.params["headerType"], link.params["path"], link.params["host"]) == ("http", "/a,/b", "h.example")
    [outbound] = client_config(link, socks_port=1)["outbounds"]
    assert outbound["streamSettings"]["rawSettings"]["header"] == header


@pytest.mark.parametrize(
    "text",
    ["", "hello", "vless://", "vless://@a.b:1", "vless://u@:1", "vless://u@a.b", "vless://u@a.b:99999", "vless://u@[::1:1",
     "unheard://u@a.b:1"],
)  # fmt: skip
def test_what_is_not_a_link_is_refused(text: str) -> None:
    with pytest.raises(LinkUnreadable):
        parse_link(text)


@pytest.mark.parametrize("params", [{"type": "carrier-pigeon"}, {"security": "trust-me"}])
def test_a_link_over_an_unknown_transport_is_refused(params: dict[str, str]) -> None:
    with pytest.raises(LinkUnreadable):
        client_config(ParsedLink("vless", UUID, "a.b", 1, params), socks_port=1)


def test_no_link_is_made_for_what_we_do_not_speak_or_that_is_broken() -> None:
    client = ClientBody(client=3, inbound=7, uuid=UUID)
    with pytest.raises(LinkImpossible):
        share_link(InboundBody(ref=7, port=1, protocol="unheard", settings={}), client, address="a.b", remark="")
    with pytest.raises(LinkImpossible):
        share_link(reality(privateKey="x"), client, address="a.b", remark="")


def test_a_links_secrets_do_not_show_in_logs() -> None:
    assert UUID not in repr(parse_link(f"vless://{UUID}@a.b:1?pbk=key"))
