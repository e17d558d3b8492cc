"""Who gets onto the bus, and who does not."""

import ssl
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from nats.errors import Error as NatsError

from harness.broker import FleetBroker, attacker
from xfleet_nats.fleet import FleetIssuer, NameUnusable, create_fleet
from xfleet_runtime.broker import Credentials, tls_context
from xfleet_runtime.keys import jwt
from xfleet_runtime.keys.nkeys import KeyPair, Kind

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real_broker]

REFUSED = (NatsError, OSError, TimeoutError)


async def refused(credentials: Credentials, **overrides: object) -> str:
    """Why the broker did not let these in; fails when it did."""
    try:
        async with attacker(credentials, **overrides):
            pass
    except REFUSED as error:
        return f"{type(error).__name__} {error}".lower()
    raise AssertionError("the broker let the connection in")


def user_token(broker: FleetBroker, signer: KeyPair, public: str, **more: object) -> str:
    nats = {"type": "user", "issuer_account": broker.keys.fleet_account, **more}
    return jwt.encode(signer, subject=public, name="srv1", issued_at=int(time.time()), nats=nats)


@pytest.mark.parametrize("role", ["agent", "rpc", "ctl", "svc", "bot", "enroll", "cli", "ops-ro", "sys"])
async def test_every_role_gets_in_with_what_it_was_issued(broker: FleetBroker, role: str) -> None:
    async with attacker(broker.credentials(role, "one")) as client:
        assert client.client.is_connected


async def test_a_token_of_an_unknown_signer_is_refused(broker: FleetBroker) -> None:
    good = broker.credentials("agent", "srv1")
    pair = KeyPair.generate(Kind.USER)
    token = user_token(broker, KeyPair.generate(Kind.ACCOUNT), pair.public)
    assert "authorization" in await refused(msgspec.structs.replace(good, jwt=token, seed=pair.seed))


async def test_a_token_with_rights_of_its_own_is_refused(broker: FleetBroker) -> None:
    good = broker.credentials("agent", "srv1")
    pair = KeyPair.generate(Kind.USER)
    signer = KeyPair.from_seed(broker.keys.role_seeds["agent"])
    token = user_token(broker, signer, pair.public, pub={"allow": [">"]}, sub={"allow": [">"]}, subs=-1, data=-1)
    assert "authorization" in await refused(msgspec.structs.replace(good, jwt=token, seed=pair.seed))


async def test_a_bearer_token_is_refused(broker: FleetBroker) -> None:
    good = broker.credentials("agent", "srv1")
    signer = KeyPair.from_seed(broker.keys.role_seeds["agent"])
    public = KeyPair.from_seed(good.seed).public
    token = user_token(broker, signer, public, bearer_token=True)
    assert "authorization" in await refused(msgspec.structs.replace(good, jwt=token))


async def test_a_stolen_token_without_its_key_is_refused(broker: FleetBroker) -> None:
    victim, thief = broker.credentials("ctl", "controller"), broker.credentials("agent", "srv1")
    assert "authorization" in await refused(msgspec.structs.replace(thief, jwt=victim.jwt))


async def test_a_token_signed_by_the_user_itself_is_refused(broker: FleetBroker) -> None:
    good = broker.credentials("agent", "srv1")
    pair = KeyPair.from_seed(good.seed)
    assert "authorization" in await refused(msgspec.structs.replace(good, jwt=user_token(broker, pair, pair.public)))


async def test_a_token_of_another_fleet_is_refused(broker: FleetBroker) -> None:
    _, other = create_fleet("other")
    stranger = FleetIssuer(other).bus_credentials("agent", "srv1", broker.urls)
    ours = broker.credentials("agent", "srv1")
    assert "authorization" in await refused(msgspec.structs.replace(ours, jwt=stranger.jwt, seed=stranger.seed))


async def test_no_token_at_all_is_refused(broker: FleetBroker) -> None:
    good = broker.credentials("agent", "srv1")
    assert "authorization" in await refused(good, user_jwt_cb=None, signature_cb=None)


async def test_an_expired_token_is_refused(broker: FleetBroker) -> None:
    good = broker.credentials("agent", "srv1")
    pair = KeyPair.generate(Kind.USER)
    token = broker.issuer.issue_user_jwt("agent", "srv1", pair.public, datetime.now(UTC) - timedelta(seconds=5))
    assert "authorization" in await refused(msgspec.structs.replace(good, jwt=token, seed=pair.seed))


async def test_tls_1_2_is_refused(broker: FleetBroker) -> None:
    good = broker.credentials("agent", "srv1")
    context = tls_context(good)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    await refused(good, tls=context)


async def test_no_client_certificate_is_refused(broker: FleetBroker) -> None:
    good = broker.credentials("agent", "srv1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=good.ca_pem)
    await refused(good, tls=context)


async def test_a_certificate_of_a_foreign_authority_is_refused(broker: FleetBroker) -> None:
    _, other = create_fleet("test")
    stranger = FleetIssuer(other).bus_credentials("agent", "srv1", broker.urls)
    good = broker.credentials("agent", "srv1")
    await refused(msgspec.structs.replace(good, cert_pem=stranger.cert_pem, key_pem=stranger.key_pem))


async def test_the_broker_s_own_certificate_is_no_client_s(broker: FleetBroker) -> None:
    leaf = broker.issuer.issue_broker_certificate()
    good = broker.credentials("agent", "srv1")
    await refused(msgspec.structs.replace(good, cert_pem=leaf.chain_pem, key_pem=leaf.key_pem))


async def test_a_route_certificate_is_no_client_s(broker: FleetBroker) -> None:
    leaf = broker.issuer.issue_route_certificate("n9", ("127.0.0.1",))
    good = broker.credentials("agent", "srv1")
    await refused(msgspec.structs.replace(good, cert_pem=leaf.chain_pem, key_pem=leaf.key_pem))


async def test_an_agent_s_certificate_cannot_pass_for_the_broker(broker: FleetBroker) -> None:
    """The client's side: whoever holds an agent's key cannot put a false broker in the way."""
    import asyncio

    identity = broker.credentials("agent", "srv1")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    false_broker = msgspec.structs.replace(identity)
    import tempfile
    from pathlib import Path

    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        Path(file.name).write_text(false_broker.cert_pem + false_broker.key_pem)
        server.load_cert_chain(file.name)
    listener = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0, ssl=server)
    port = listener.sockets[0].getsockname()[1]
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("127.0.0.1", port, ssl=tls_context(identity), server_hostname=identity.tls_name)
    listener.close()
    await listener.wait_closed()


@pytest.mark.parametrize("name", ["*", ">", "srv1.x", "a b", "", "UPPER", "-x", "_x", "a" * 64, "srv1\n", "сервер"])
@pytest.mark.parametrize("role", ["agent", "enroll"])
async def test_names_that_would_become_wildcards_are_never_issued(broker: FleetBroker, role: str, name: str) -> None:
    with pytest.raises(NameUnusable):
        broker.issuer.issue_user_jwt(
            role, name, KeyPair.generate(Kind.USER).public, datetime.now(UTC) + timedelta(days=1)
        )
    with pytest.raises(NameUnusable):
        broker.issuer.issue_client_certificate("", name, datetime.now(UTC) + timedelta(days=1))
