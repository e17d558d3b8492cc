"""Allowances: how much each client may still use here, enforced with or without a controller.

The limit is kept against the client's own running total, which the meter moves in the transaction of its readings: it
survives restarts, and needs no arithmetic when the bus is gone.
"""

from xfleet_agent.database import transaction
from xfleet_agent.spool import ARCHIVED, Spool
from xfleet_contracts import codec
from xfleet_contracts.allowance import Allowances
from xfleet_contracts.traffic import Batch


def accept(spool: Spool, told: Allowances) -> int:
    """Stores the figures with a higher serial than we know; returns how many were new."""
    known: dict[int, int] = dict(spool.db.execute("SELECT client, serial FROM allowances"))
    fresh = [item for item in told.items if item.serial > known.get(item.client, -1)]
    if not fresh:
        return 0
    later = _bytes_after(spool, told.as_of_epoch, told.as_of_floor)
    totals: dict[int, int] = dict(spool.db.execute("SELECT client, bytes FROM client_totals"))
    with transaction(spool.db) as db:
        for item in fresh:
            limit = None
            if item.allowance_bytes is not None:
                used = later.get(item.client, 0)
                limit = max(0, totals.get(item.client, 0) + item.allowance_bytes - used)
            db.execute("INSERT OR REPLACE INTO allowances VALUES (?, ?, ?)", (item.client, item.serial, limit))
    return len(fresh)


def list_exhausted(spool: Spool) -> dict[int, int]:
    """Client to the serial of its allowance, for all that used it up."""
    rows = spool.db.execute(
        "SELECT a.client, a.serial FROM allowances a LEFT JOIN client_totals t ON t.client = a.client"
        " WHERE a.limit_bytes IS NOT NULL AND COALESCE(t.bytes, 0) >= a.limit_bytes"
    )
    return dict(rows)


def _bytes_after(spool: Spool, epoch: str, floor: int) -> dict[int, int]:
    """Bytes per client that the ledger had not seen at (epoch, floor): open, waiting, or receipted since."""
    used: dict[int, int] = {}
    for counter, up, down in spool.db.execute("SELECT counter, up, down FROM open_rows WHERE counter LIKE 'c:%'"):
        client = int(counter[2:].partition(".")[0])
        used[client] = used.get(client, 0) + up + down
    row = spool.db.execute("SELECT ordinal FROM epochs WHERE epoch = ?", (epoch,)).fetchone()
    ordinal = row[0] if row else None
    batches = spool.db.execute(
        "SELECT payload FROM batches WHERE (epoch = :epoch AND seq > :floor)"
        " OR (epoch != :epoch AND (state != :archived OR ordinal > :ordinal))",
        {"epoch": epoch, "floor": floor, "archived": ARCHIVED, "ordinal": ordinal if ordinal is not None else 1 << 62},
    )
    for (payload,) in batches:
        for client_row in codec.decode(payload, Batch).clients:
            more = client_row.up_bytes + client_row.down_bytes
            used[client_row.client] = used.get(client_row.client, 0) + more
    return used
