"""How fast the ledger takes rows, against the bare upsert of the same rows, in one run.

    .venv/bin/python tests/bench/ledger/measure.py [--database sqlite|postgresql] [--servers N] [--clients N]

A round is what a fleet sends within `--readings` intervals: one batch per server and interval, one row per client.
While it is taken in, the round before it is rolled up, as in steady operation; the round ends when both are done. The
bare figure adds the same number of rows, in transactions of the same size, to the same table, and does nothing else.
"""

import argparse
import asyncio
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from sqlalchemy import insert

from harness.ledger import NOW, HandDelivery, LedgerBench, batch, delivery
from harness.postgres import PostgresServer, throw_away_server
from xfleet_controller.clients.models import Client
from xfleet_controller.db import Database
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.servers.models import Server
from xfleet_controller.traffic.rollup import RollUp
from xfleet_controller.traffic.store import CLIENT_TOTALS
from xfleet_runtime.ids import new_epoch

BARE_REFS = 1 << 40
INBOUND_REFS = 1 << 30


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--servers", type=int, default=64)
    parser.add_argument("--clients", type=int, default=1000, help="on each server")
    parser.add_argument("--readings", type=int, default=30, help="intervals between two roll-ups")
    parser.add_argument("--rounds", type=int, default=4)
    return parser.parse_args()


class Fleet:
    """Servers with clients of their own, and the batches they send."""

    def __init__(self, bench: LedgerBench, servers: int, clients: int) -> None:
        self.bench = bench
        self.servers = servers
        self.clients = clients
        self.epochs = [new_epoch() for _ in range(servers)]
        self.seq = 0

    async def settle(self) -> None:
        """Writes servers, inbounds and clients."""
        ages = {"created_at": NOW - timedelta(days=30), "updated_at": NOW}
        async with self.bench.database.write() as session:
            servers = [{"slug": f"s{n}", "name": f"s{n}", **ages} for n in range(self.servers)]
            await session.execute(insert(Server), servers)
            inbounds = [
                {
                    "ref": INBOUND_REFS + n,
                    "server_id": n + 1,
                    "port": 443,
                    "protocol": "vless",
                    "config_sealed": b"",
                    **ages,
                }
                for n in range(self.servers)
            ]
            await session.execute(insert(Inbound), inbounds)
            for n in range(self.servers):
                names = [str(ref) for ref in self.refs(n)]
                rows = [{"ref": int(x), "name": x, "name_key": x, "sub_id": x, **ages} for x in names]
                await session.execute(insert(Client), rows)

    def refs(self, server: int) -> range:
        """Refs of a server's clients."""
        return range(1 + server * self.clients, 1 + (server + 1) * self.clients)

    def round(self, readings: int) -> list[list[HandDelivery]]:
        """Fetches of one round."""
        made: list[HandDelivery] = []
        for _ in range(readings):
            self.seq += 1
            at = NOW + timedelta(seconds=10 * self.seq)
            for n in range(self.servers):
                rows = [(ref, INBOUND_REFS + n, 1234 + ref % 977, 56789 + ref % 7919) for ref in self.refs(n)]
                sent = batch(self.epochs[n], self.seq, *rows, at=at, tags=())
                made.append(delivery(f"s{n}", sent, at))
        size = self.bench.ingest.settings.fetch_count
        return [made[start : start + size] for start in range(0, len(made), size)]


async def bare_round(database: Database, fleet: Fleet, readings: int) -> float:
    """Rows per second of nothing but the upsert."""
    per_fetch = LedgerBench(database).ingest.settings.fetch_count * fleet.clients
    every = [BARE_REFS + ref for _ in range(readings) for ref in range(fleet.servers * fleet.clients)]
    started = time.perf_counter()
    for start in range(0, len(every), per_fetch):
        refs = sorted(set(every[start : start + per_fetch]))
        columns = [refs, *([12345] * len(refs) for _ in range(2)), [int(NOW.timestamp() * 1000)] * len(refs)]
        async with database.write() as session:
            await CLIENT_TOTALS.run(session, columns)
    return len(every) / (time.perf_counter() - started)


async def ledger_round(fleet: Fleet, fetches: list[list[HandDelivery]], rollup: RollUp) -> float:
    """Rows per second until all is ingested and the round before is rolled up."""
    rows_count = sum(len(fetch) for fetch in fetches) * fleet.clients
    before = fleet.bench.clock.now()
    fleet.bench.clock.advance(3600)
    waiting = iter(fetches)

    async def ingest() -> None:
        for fetch in waiting:
            await fleet.bench.ingest.take(fetch)

    workers_count = 1 if fleet.bench.database.is_sqlite else 2
    started = time.perf_counter()
    await asyncio.gather(*(ingest() for _ in range(workers_count)), rollup.step(before))
    return rows_count / (time.perf_counter() - started)


async def measure(database: Database, arguments: argparse.Namespace) -> None:
    """Prints the figures of one database."""
    await database.migrate()
    fleet = Fleet(LedgerBench(database), arguments.servers, arguments.clients)
    await fleet.settle()
    rollup = RollUp(database, fleet.bench.clock, fleet.bench.metrics)
    await bare_round(database, fleet, 1)
    await ledger_round(fleet, fleet.round(arguments.readings), rollup)
    bare: list[float] = []
    ledger: list[float] = []
    for _ in range(arguments.rounds):
        fetches = fleet.round(arguments.readings)
        gc.freeze()  # what is to be sent would not be in a controller's memory
        bare.append(await bare_round(database, fleet, arguments.readings))
        ledger.append(await ledger_round(fleet, fetches, rollup))
        ratio, load = ledger[-1] / bare[-1], os.getloadavg()[0]
        say(f"  bare {bare[-1]:9,.0f}  ledger {ledger[-1]:9,.0f} rows/s  ratio {ratio:.2f}  (load {load:.1f})")
    ratio = statistics.median(each / base for each, base in zip(ledger, bare, strict=True))
    say(
        f"{database.engine.dialect.name}: medians of {arguments.rounds}: bare {statistics.median(bare):,.0f} rows/s, "
        f"ledger with roll-up {statistics.median(ledger):,.0f} rows/s, ratio {ratio:.2f}"
    )


def say(line: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def sqlite_url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="xfleet-bench-") as directory:
        yield f"sqlite+aiosqlite:///{directory}/bench.db"


@contextmanager
def postgres_url() -> Iterator[str]:
    with throw_away_server() as server:
        name = "bench"
        _create(server, name)
        yield server.url(name)


def _create(server: PostgresServer, name: str) -> None:
    server.run(f"CREATE DATABASE {name}")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


async def run(url: str, arguments: argparse.Namespace) -> None:
    async with opened(url) as database:
        await measure(database, arguments)


def main() -> None:
    arguments = parse_arguments()
    for name, made in (("sqlite", sqlite_url), ("postgresql", postgres_url)):
        if arguments.database in (name, "both"):
            with made() as url:
                asyncio.run(run(url, arguments))


if __name__ == "__main__":
    main()
