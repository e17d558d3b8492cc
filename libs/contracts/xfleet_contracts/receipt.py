"""Receipt: the controller's word that batches are durably in the ledger; only then does a spool let them go.

Subject  fleet.cmd.<sid>.receipt (controller -> agent, signed, unreplied)
Rhythm   after commits, coalesced; again on `rpc ledger`
Loss     harmless: receipts are cumulative and the next one replaces it
"""

from xfleet_contracts.message import Message
from xfleet_contracts.traffic import Epoch

RECEIPT = "receipt"
FORK = "fork"


class Receipt(Message, frozen=True, kw_only=True):
    """Everything of the epoch up to and including `committed_through` is committed."""

    epoch: Epoch
    committed_through: int
    digest: str
    """Of batch `committed_through`: an agent that sealed another batch under this number ignores the receipt."""


class Fork(Message, frozen=True, kw_only=True):
    """fleet.cmd.<sid>.fork: this number was already taken by another body; seal it again under a new epoch."""

    epoch: Epoch
    seq: int
    committed_digest: str
    refused_digest: str
