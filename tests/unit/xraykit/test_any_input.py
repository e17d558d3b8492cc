"""Whatever an operator writes is answered with problems, never with a crash."""

from hypothesis import given, settings
from hypothesis import strategies as st

from xfleet_contracts.desired_state import ClientBody, InboundBody, OutboundBody, RuleBody, SettingsBody
from xfleet_contracts.errors import Refusal
from xfleet_xraykit.generate import complete_client, complete_inbound
from xfleet_xraykit.links import client_config, parse_link, share_link
from xfleet_xraykit.lint import lint_client, lint_inbound, lint_outbound, lint_state
from xfleet_xraykit.render import render_config
from xfleet_xraykit.state import State

WORDS = st.sampled_from([
    "", "raw", "tcp", "ws", "none", "reality", "http", "/", "//[", "/?ed=1", "/?ed=x", "a.b:443", ":443", "443",
    "a.b:x", "[::1]:443", "abcd", "api", "block", "direct", "in-7", "*.a", "xtls-rprx-vision", "0.0.0.0", "::", "@x",
    "/x.sock", "example.com",
])  # fmt: skip
KEYS = st.sampled_from([
    "network", "security", "realitySettings", "wsSettings", "rawSettings", "tcpSettings", "sockopt", "settings",
    "target", "dest", "serverNames", "shortIds", "privateKey", "xver", "path", "host", "headers", "Host", "header",
    "type", "request", "decryption", "fallbacks", "clients", "destOverride", "enabled", "outboundTag", "inboundTag",
    "domain", "ruleTag", "levels", "0", "system", "servers", "fingerprint", "serverName", "spiderX", "junk",
])  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 70000), st.floats(allow_nan=False), WORDS, st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=8,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=5)
STREAMS = st.one_of(
    OBJECTS,
    st.builds(lambda it: {"network": "ws", "wsSettings": it}, OBJECTS),
    st.builds(lambda it: {"security": "reality", "realitySettings": it}, OBJECTS),
    st.builds(lambda it: {"rawSettings": {"header": it}}, OBJECTS),
)
INBOUNDS = st.builds(
    InboundBody,
    ref=st.integers(1, 9),
    listen=WORDS,
    port=st.integers(-1, 70000),
    protocol=st.sampled_from(["vless", "vles", ""]),
    settings=OBJECTS,
    stream_settings=STREAMS,
    sniffing=OBJECTS,
)
CLIENTS = st.builds(ClientBody, client=st.integers(1, 9), inbound=st.just(7), uuid=WORDS, flow=WORDS)


@settings(max_examples=50, deadline=None)
@given(INBOUNDS, CLIENTS)
def test_any_inbound_is_judged_completed_and_linked_or_refused(inbound: InboundBody, client: ClientBody) -> None:
    lint_inbound(inbound)
    lint_client(client, inbound)
    done = complete_inbound(inbound)
    assert complete_inbound(done) == done
    given_one = complete_client(client, done)
    found = lint_inbound(done)
    try:
        link = share_link(done, given_one, address="vpn.example", remark="r")
        client_config(parse_link(link), socks_port=1)
    except Refusal:
        assert found or lint_client(given_one, done) or done.listen.startswith(("/", "@"))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(INBOUNDS, max_size=3),
    st.lists(CLIENTS, max_size=3),
    st.builds(OutboundBody, tag=WORDS, protocol=WORDS, settings=OBJECTS, stream_settings=STREAMS),
    st.lists(st.builds(RuleBody, rule=OBJECTS), max_size=2),
    st.builds(SettingsBody, log_level=WORDS, policy=OBJECTS, dns=OBJECTS),
)
def test_any_state_is_judged_and_rendered(
    inbounds: list[InboundBody],
    clients: list[ClientBody],
    outbound: OutboundBody,
    rules: list[RuleBody],
    xray_settings: SettingsBody,
) -> None:
    state = State(
        inbounds={each.ref: each for each in inbounds},
        clients={7: {f"{each.client}.7": each for each in clients}},
        outbounds=[outbound],
        rules=[(f"r{index}", each) for index, each in enumerate(rules)],
        settings=xray_settings,
    )
    lint_state(state)
    lint_outbound(outbound)
    render_config(state, api_socket="/x")
