"""Enrollment: trades a one-time enrollment token for an identity whose private keys never leave this machine."""

import base64
import binascii
import os
import platform
import socket
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from xfleet_agent.calls import opened
from xfleet_agent.identity import FILE_NAME, Identity, credentials_of
from xfleet_agent.version import agent_version
from xfleet_contracts import codec, subjects
from xfleet_contracts.enrollment import AgentIdentity, EnrollAnswer, EnrollmentToken, EnrollRequest
from xfleet_contracts.errors import MessageMalformed, Refusal
from xfleet_contracts.message import Secret
from xfleet_runtime.broker import BrokerLink, BrokerOutage, Credentials, Proxy
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import lock_exclusively, private_directory, write_private
from xfleet_runtime.keys.nkeys import KeyPair, Kind
from xfleet_runtime.keys.signing import open_manifest
from xfleet_runtime.keys.x509 import generate_key_pem, request_pem

CONNECT_TIMEOUT_S = 15.0
ANSWER_TIMEOUT_S = 15.0
MAX_TOKEN_BYTES = 64 * 1024
_PENDING_NAME = "enrolling.json"
ASIDE = "was-"
"""Begins the names of directories with the state of a server that this machine was before."""
_STAYS = frozenset({_PENDING_NAME, "agent.lock", "run"})


class _Pending(msgspec.Struct, frozen=True, kw_only=True):
    """Keys made for a token: kept until it worked, so that a second try sends the same ones."""

    token_id: str
    nkey_seed: Secret
    key_pem: Secret


def read_token(text: str) -> EnrollmentToken:
    """The token in the pasted line. Raises `Unusable` saying what is wrong with it."""
    line = "".join(text.split())
    try:
        raw = base64.b64decode(line + "=" * (-len(line) % 4), altchars=b"-_", validate=True)
        token = codec.decode(raw if raw.startswith(b"{") else _inflated(raw), EnrollmentToken)
    except (binascii.Error, ValueError, zlib.error, MessageMalformed) as error:
        raise Unusable("This is not an enrollment token, or it was cut. Copy the whole line from the panel.") from error
    if token.version != 1:
        raise Unusable("This enrollment token is from a newer xfleet. Upgrade this agent first.")
    return token


def _inflated(raw: bytes) -> bytes:
    """A token that was made short for a terminal's line."""
    inflating = zlib.decompressobj()
    text = inflating.decompress(raw, MAX_TOKEN_BYTES)
    if not inflating.eof:
        raise ValueError("cut or too long")
    return text


async def enroll_again(state_dir: Path, token: EnrollmentToken, proxy: Proxy | None = None) -> Identity:
    """As `enroll`, where there may be an identity already; no agent may run there.

    State of another server is set aside, because nothing in it is this server's. Raises `Unusable`.
    """
    lock = lock_exclusively(state_dir / "agent.lock", owner="An agent")
    try:
        return await enroll(state_dir, token, proxy, settle=lambda new: _set_others_aside(state_dir, new))
    finally:
        os.close(lock)


async def enroll(
    state_dir: Path,
    token: EnrollmentToken,
    proxy: Proxy | None = None,
    *,
    settle: Callable[[AgentIdentity], None] = lambda _: None,
) -> Identity:
    """Gets an identity and stores it; `settle` is called before it is stored.

    Raises `Unusable` when the broker or the controller says no.
    """
    private_directory(state_dir)
    pending = _keys_for(state_dir, token)
    answer = await _ask(token, pending, proxy)
    data = AgentIdentity(
        sid=answer.sid,
        root_public_key=token.root_public_key,
        nkey_seed=pending.nkey_seed,
        jwt=answer.jwt,
        key_pem=pending.key_pem,
        cert_pem=answer.cert_pem,
        manifest=answer.manifest,
    )
    try:
        manifest = open_manifest(token.root_public_key, answer.manifest)
    except Refusal as refusal:
        raise Unusable(f"Enrollment failed: {refusal.text} Get a new token from your own panel.") from refusal
    credentials_of(data, manifest).check()
    path = state_dir / FILE_NAME
    settle(data)
    write_private(path, codec.canonical(data))
    (state_dir / _PENDING_NAME).unlink(missing_ok=True)
    return Identity(path, data)


def _set_others_aside(state_dir: Path, new: AgentIdentity) -> None:
    try:
        old = msgspec.json.decode((state_dir / FILE_NAME).read_bytes(), type=AgentIdentity)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return
    if (old.sid, old.root_public_key) == (new.sid, new.root_public_key):
        return
    aside = private_directory(state_dir / f"{ASIDE}{old.sid}-{int(time.time())}")
    for each in state_dir.iterdir():
        if each.name not in _STAYS and not each.name.startswith(ASIDE):
            each.replace(aside / each.name)


def _keys_for(state_dir: Path, token: EnrollmentToken) -> _Pending:
    path = state_dir / _PENDING_NAME
    if path.exists():
        try:
            pending = msgspec.json.decode(path.read_bytes(), type=_Pending)
        except msgspec.DecodeError:
            pending = None
        if pending is not None and pending.token_id == token.token_id:
            return pending
    pair = KeyPair.generate(Kind.USER)
    pending = _Pending(token_id=token.token_id, nkey_seed=pair.seed, key_pem=generate_key_pem())
    write_private(path, msgspec.json.encode(pending))
    return pending


async def _ask(token: EnrollmentToken, pending: _Pending, proxy: Proxy | None) -> EnrollAnswer:
    credentials = Credentials(
        urls=token.broker_urls,
        ca_pem=token.ca_pem,
        cert_pem=token.cert_pem,
        key_pem=token.key_pem,
        jwt=token.jwt,
        seed=token.seed,
        tls_name=token.tls_name,
        inbox_prefix=subjects.enroll_inbox(token.token_id),
    )
    request = EnrollRequest(
        nkey=KeyPair.from_seed(pending.nkey_seed).public,
        csr_pem=request_pem(pending.key_pem),
        agent_version=agent_version(),
        hostname=socket.gethostname(),
        machine=f"{platform.system()} {platform.release()} {platform.machine()}",
    )
    where = ", ".join(token.broker_urls)
    async with BrokerLink(credentials, name="enrollment", longest_wait_s=2.0, proxy=proxy) as link:
        try:
            await link.wait_connected(CONNECT_TIMEOUT_S)
        except BrokerOutage as outage:
            if link.refused:
                raise Unusable(
                    f"The broker at {where} refuses this enrollment token: it expired, was taken back, or is another"
                    " fleet's. Make a new line in the panel."
                ) from outage
            if "certificate verify failed" in str(outage).lower():
                raise Unusable(
                    f"Who answers at {where} is not the broker of this token's fleet. Check the address, and make a new"
                    " line in the panel."
                ) from outage
            raise Unusable(
                f"Cannot reach the broker at {where} ({outage}). Check the address and firewall; a token is valid once"
                " and for a short time."
            ) from outage
        try:
            answer = await link.request(
                subjects.enroll(token.token_id), codec.encode(request), timeout_s=ANSWER_TIMEOUT_S
            )
            return opened(answer.payload, EnrollAnswer)
        except BrokerOutage as outage:
            raise Unusable(f"The controller did not answer ({outage}). Is it running? Then try again.") from outage
        except Refusal as refusal:
            raise Unusable(f"Enrollment was refused: {refusal.text} Make a new token in the panel.") from refusal
