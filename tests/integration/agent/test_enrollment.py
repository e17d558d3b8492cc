"""Enrollment over the real broker: one token, one identity, private keys that stay."""

import asyncio
import base64
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from harness.agent import AgentProcess
from harness.broker import FleetBroker, eventually
from xfleet_contracts import codec, subjects
from xfleet_contracts.commands import Reply
from xfleet_contracts.enrollment import EnrollAnswer, EnrollmentToken, EnrollRequest
from xfleet_contracts.errors import ErrorBody
from xfleet_contracts.heartbeat import Heartbeat
from xfleet_runtime.broker import BrokerLink, Incoming
from xfleet_runtime.keys import signing
from xfleet_xraykit.process import stop

TOKEN_ID = "tok1"


def token_of(broker: FleetBroker) -> str:
    credentials = broker.credentials("enroll", TOKEN_ID)
    token = EnrollmentToken(
        token_id=TOKEN_ID,
        broker_urls=broker.urls,
        tls_name=credentials.tls_name,
        ca_pem=credentials.ca_pem,
        root_public_key=broker.keys.root_public,
        jwt=credentials.jwt,
        seed=credentials.seed,
        cert_pem=credentials.cert_pem,
        key_pem=credentials.key_pem,
    )
    return base64.urlsafe_b64encode(codec.canonical(token)).decode().rstrip("=")


class EnrollmentDesk:
    """Gives out one identity per token."""

    def __init__(self, broker: FleetBroker, rpc: BrokerLink) -> None:
        self.broker = broker
        self.rpc = rpc
        self.requests: list[EnrollRequest] = []
        self.refuse = False

    async def answer(self, message: Incoming) -> None:
        request = codec.decode(message.payload, EnrollRequest)
        self.requests.append(request)
        jwt, certificate = self.broker.issuer.issue_agent("srv1", request.nkey, request.csr_pem)
        manifest = signing.sign_manifest(self.broker.root.manifest_key, self.broker.manifest())
        answer = EnrollAnswer(sid="srv1", jwt=jwt, cert_pem=certificate, manifest=manifest)
        reply = Reply(ok=True, data=msgspec.Raw(codec.canonical(answer)))
        if self.refuse:
            reply = Reply(ok=False, error=ErrorBody(code="token_used", message="This token was already used."))
        await self.rpc.respond(message, codec.encode(reply), within=subjects.enroll_inbox(TOKEN_ID))


@pytest.fixture
async def desk(broker: FleetBroker) -> AsyncIterator[EnrollmentDesk]:
    async with broker.link("rpc", "controller") as rpc:
        await rpc.wait_connected(10)
        desk = EnrollmentDesk(broker, rpc)
        await rpc.subscribe(subjects.ALL_ENROLLMENTS, desk.answer)
        yield desk


async def command(*arguments: str, given: str = "") -> tuple[int, str]:
    """Exit code and stderr of `xfleet-agent`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "xfleet_agent.main", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await asyncio.wait_for(process.communicate(given.encode()), 40)
    lines = [line for line in errors.decode().splitlines() if line.startswith("xfleet:")]
    return process.returncode or 0, "\n".join(lines)


async def test_a_new_agent_enrolls_by_itself_and_beats_under_its_own_name(
    desk: EnrollmentDesk, broker: FleetBroker, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(token_of(broker))
    agent = AgentProcess(tmp_path / "a" / "state")
    agent.state_dir.mkdir(parents=True)
    beats: list[Heartbeat] = []

    async def on_beat(message: Incoming) -> None:
        beats.append(codec.decode(message.payload, Heartbeat))

    async with broker.link("ctl", "ears") as ears:
        await ears.wait_connected(10)
        await ears.subscribe(subjects.heartbeat("srv1"), on_beat)
        await agent.start("--token-file", str(token_file))
        await eventually(lambda: beats, within_s=20)
    identity = agent.state_dir / "identity.json"
    assert stat.S_IMODE(identity.stat().st_mode) == 0o600
    assert "PRIVATE KEY" not in desk.requests[0].csr_pem
    assert not (agent.state_dir / "enrolling.json").exists()
    await agent.end()
    for xray in agent.xrays():
        await stop(xray)


async def test_a_second_try_sends_the_same_keys(desk: EnrollmentDesk, broker: FleetBroker, tmp_path: Path) -> None:
    desk.refuse = True
    arguments = ("enroll", "--state-dir", str(tmp_path / "s"), "--token-file", "-")
    code, line = await command(*arguments, given=token_of(broker))
    assert (code, line) == (
        2,
        "xfleet: Enrollment was refused: This token was already used. Make a new token in the panel.",
    )
    desk.refuse = False
    assert await command(*arguments, given=token_of(broker)) == (0, "")
    first, second = desk.requests
    assert first.nkey == second.nkey
    code, line = await command(*arguments, given=token_of(broker))
    assert code == 2
    assert "already holds an identity" in line


@pytest.mark.parametrize(
    ("given", "says"),
    [("nonsense!", "not an enrollment token"), ("e30", "not an enrollment token")],
)
async def test_a_bad_token_is_one_clear_line(tmp_path: Path, given: str, says: str) -> None:
    code, line = await command("enroll", "--state-dir", str(tmp_path / "s"), "--token-file", "-", given=given)
    assert code == 2
    assert says in line
    assert len(line.splitlines()) == 1


async def test_what_cannot_run_says_so_in_one_line(tmp_path: Path) -> None:
    code, line = await command("run", "--state-dir", str(tmp_path / "none"))
    assert code == 2
    assert "no identity" in line
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "identity.json").write_text("{}")
    code, line = await command("run", "--state-dir", str(broken))
    assert code == 2
    assert "damaged" in line
    code, line = await command("enroll", "--state-dir", str(broken / "x"), "--token-file", str(tmp_path / "no-such"))
    assert code == 2
    assert "Cannot read the enrollment token" in line
