"""Allowance: how much a client may still use on this server before the agent, even alone, disconnects it.

Subject  fleet.cmd.<sid>.allowance (controller -> agent, signed, unreplied)
Rhythm   when a client nears its quota or the figure changed materially; all of them after a reconnect
Loss     harmless: the higher serial wins and the controller repeats it
"""

from xfleet_contracts.message import ByteCount, Message, Ref
from xfleet_contracts.traffic import Epoch

ALLOWANCE = "allowance"


class Allowance(Message, frozen=True, kw_only=True):
    """One client's allowance."""

    client: Ref
    allowance_bytes: ByteCount | None
    """Bytes, up and down together, still allowed after `as_of`; None lifts the limit."""
    serial: int
    """Grows with every decision about this client; a lower one is ignored."""


class Allowances(Message, frozen=True, kw_only=True):
    """Several at once, all reckoned at one point of this server's ledger."""

    as_of_epoch: Epoch = ""
    as_of_floor: int = 0
    """What the agent sealed after this batch is subtracted by the agent."""
    items: tuple[Allowance, ...] = ()
