"""What the courier takes for proof that a batch is in the ledger."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.ledger_world import Agent, World, Xray
from xfleet_agent.calls import AnswerUntrusted
from xfleet_contracts.errors import ErrorBody, RemoteRefusal
from xfleet_contracts.traffic import BATCH_NOT_KEPT, BatchName

NAME = BatchName(epoch="e1", seq=1, digest="d")


class Saying:
    """A ledger that meets every question about a batch with this."""

    def __init__(self, outcome: Exception) -> None:
        self._outcome = outcome

    async def ledger_batch(self, _name: BatchName) -> bytes:
        raise self._outcome


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(World(), tmp_path, Xray("x0"))
    yield made
    made.die()


def no(code: str) -> RemoteRefusal:
    return RemoteRefusal(ErrorBody(code=code, message="no"))


async def test_only_a_body_no_longer_kept_leaves_the_floor_as_proof(agent: Agent) -> None:
    agent.courier._calls = Saying(no(BATCH_NOT_KEPT))
    assert await agent.courier._ledger_digest(NAME) is None


@pytest.mark.parametrize("outcome", [no("internal"), AnswerUntrusted("forged")], ids=["broken", "forged"])
async def test_no_other_failure_is_proof_of_anything(agent: Agent, outcome: Exception) -> None:
    agent.courier._calls = Saying(outcome)
    with pytest.raises(type(outcome)):
        await agent.courier._ledger_digest(NAME)
