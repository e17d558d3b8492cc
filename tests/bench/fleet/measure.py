"""From one client's change to the acknowledgement of all servers.

    .venv/bin/python tests/bench/fleet/measure.py [--servers 50] [--changes 40] [--database sqlite|postgresql]

A real broker, a real controller with its loops and API, and simulated agents in a process of their own that speak the
real contracts: they enroll, check every signature, keep state by difference, answer, and beat. A change adds a client
to an inbound of every server; the clock runs from the request to the API to its answer, which waits for all tasks.
"""

import argparse
import asyncio
import cProfile
import pstats
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from harness.broker import eventually
from harness.controller_fleet import World, api_of, running_world
from harness.crowd import add_inbounds, add_servers, running_crowd
from harness.postgres import throw_away_server


async def measure(
    world: World, directory: Path, *, servers: int, changes: int, profile: bool
) -> list[tuple[float, float]]:
    """Seconds of every change, and of the controller's CPU time within."""
    context = world.controller.context
    tokens = await add_servers(world, servers)
    inbound_ids = await add_inbounds(context)
    took_s: list[tuple[float, float]] = []
    async with api_of(world) as api, running_crowd(tokens, directory):
        await eventually(lambda: sum(each == "online" for each in _statuses(world)) >= servers, within_s=60)
        profiler = cProfile.Profile()
        for number in range(-3, changes):
            await asyncio.sleep(0.3)
            body = {"name": f"client{number}", "inbound_ids": inbound_ids}
            if profile and number == 0:
                profiler.enable()
            started, cpu_started = time.perf_counter(), time.process_time()
            answer = await api.post("/api/v1/clients", params={"wait": 15}, json=body, timeout=30)
            passed_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
            statuses = {task["status"] for task in answer.json()["tasks"]}
            assert statuses == {"completed"}, statuses
            assert len(answer.json()["tasks"]) == servers
            if number >= 0:
                took_s.append((passed_s, cpu_s))
        if profile:
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(35)
    return took_s


def _statuses(world: World) -> list[str]:
    presence = world.controller.context.presence
    return [presence.status(sid) for sid, _ in presence.list_seen()]


async def run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="xb-") as name:
        directory = Path(name)
        if arguments.database == "postgresql":
            with throw_away_server() as server:
                async with running_world(directory / "data", database_url=server.new_database()) as world:
                    took_s = await _measured(world, directory, arguments)
        else:
            async with running_world(directory / "data") as world:
                took_s = await _measured(world, directory, arguments)
    ordered, cpu_s = sorted(each for each, _ in took_s), [each for _, each in took_s]
    p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    sys.stdout.write(
        f"{arguments.database}: {len(ordered)} changes on {arguments.servers} servers:"
        f" p50 {statistics.median(ordered):.3f} s, p99 {p99:.3f} s, slowest {ordered[-1]:.3f} s,"
        f" controller's CPU {statistics.median(cpu_s):.3f} s a change\n"
    )


async def _measured(world: World, directory: Path, arguments: argparse.Namespace) -> list[tuple[float, float]]:
    return await measure(
        world, directory, servers=arguments.servers, changes=arguments.changes, profile=arguments.profile
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=50)
    parser.add_argument("--changes", type=int, default=40)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--profile", action="store_true", help="where the controller's time goes")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(run(parse_arguments()))
