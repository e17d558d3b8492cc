"""Presence: what silence means, and what beats are not believed."""

import pytest

from harness.controller import make_beat
from xfleet_contracts import codec, subjects
from xfleet_controller.servers.presence import BEATS_BURST_COUNT, OFFLINE, ONLINE, PENDING, STALE, Presence
from xfleet_runtime.broker import Incoming
from xfleet_runtime.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def presence(clock: FakeClock) -> Presence:
    made = Presence(clock)
    made.set_known({"srv1", "srv2"})
    return made


def incoming(payload: bytes, sid: str = "srv1") -> Incoming:
    return Incoming(subjects.heartbeat(sid), payload, "", {})


def test_a_beat_is_online_silence_is_stale_then_offline(presence: Presence, clock: FakeClock) -> None:
    presence.now_listening()
    presence.take("srv1", make_beat())
    assert presence.status("srv1") == ONLINE
    clock.advance(26)
    assert presence.status("srv1") == STALE
    clock.advance(10)
    assert presence.status("srv1") == OFFLINE


def test_nobody_is_offline_before_we_have_listened_long_enough(presence: Presence, clock: FakeClock) -> None:
    clock.advance(1000)
    assert presence.status("srv1", ONLINE) == STALE
    presence.now_listening()
    clock.advance(34)
    assert presence.status("srv1", ONLINE) == STALE
    clock.advance(1)
    assert presence.status("srv1", ONLINE) == OFFLINE


def test_a_lost_link_of_ours_turns_nobody_offline(presence: Presence, clock: FakeClock) -> None:
    presence.now_listening()
    presence.take("srv1", make_beat())
    presence.now_deaf()
    clock.advance(600)
    assert presence.status("srv1") == STALE
    presence.now_listening()
    clock.advance(34)
    assert presence.status("srv1") == STALE


def test_a_server_never_heard_stays_pending(presence: Presence, clock: FakeClock) -> None:
    presence.now_listening()
    clock.advance(100)
    assert presence.status("srv2", PENDING) == PENDING


def test_an_older_beat_is_ignored(presence: Presence) -> None:
    presence.take("srv1", make_beat(5))
    presence.take("srv1", make_beat(4, applied_revision=9))
    seen = presence.get("srv1")
    assert seen is not None
    assert seen.beat.seq == 5
    assert presence.refused_count["older_beat"] == 1


def test_two_instances_are_both_remembered(presence: Presence, clock: FakeClock) -> None:
    presence.take("srv1", make_beat(5))
    presence.take("srv1", make_beat(1, instance="i2"))
    assert set(presence.live_starts("srv1")) == {"i1", "i2"}
    clock.advance(36)
    presence.take("srv1", make_beat(2, instance="i2"))
    assert set(presence.live_starts("srv1")) == {"i2"}


def test_a_predecessor_that_beats_again_is_a_double_and_a_successor_is_not(
    presence: Presence, clock: FakeClock
) -> None:
    doubles: list[tuple[str, tuple[str, str]]] = []
    presence.on_double.append(lambda sid, pair: doubles.append((sid, pair)))
    presence.take("srv1", make_beat(1))
    presence.take("srv1", make_beat(1, instance="i2"))
    clock.advance(1)
    presence.take("srv1", make_beat(2))
    assert doubles == []
    clock.advance(5)
    presence.take("srv1", make_beat(2, instance="i2"))
    assert doubles == []
    clock.advance(0.5)
    presence.take("srv1", make_beat(3))
    assert doubles == [("srv1", ("i1", "i2"))]


@pytest.mark.parametrize(
    ("payload", "sid", "reason"),
    [
        (b"not json", "srv1", "malformed"),
        (b'{"seq": "1"}', "srv1", "malformed"),
        (b"x" * 300_000, "srv1", "too_large"),
        (codec.encode(make_beat()), "unknown", "unknown_server"),
        (codec.encode(make_beat()), "BAD.sid", "malformed"),
    ],
)
async def test_a_bad_beat_is_refused_and_counted(presence: Presence, payload: bytes, sid: str, reason: str) -> None:
    await presence.on_heartbeat(incoming(payload, sid))
    assert presence.refused_count[reason] == 1
    assert presence.get("srv1") is None


async def test_a_flood_is_cut_before_it_is_decoded(presence: Presence, clock: FakeClock) -> None:
    for seq in range(1, 200):
        await presence.on_heartbeat(incoming(codec.encode(make_beat(seq))))
    assert presence.refused_count["too_fast"] == 199 - BEATS_BURST_COUNT
    await presence.on_heartbeat(incoming(codec.encode(make_beat()), "srv2"))
    assert presence.status("srv2") == ONLINE
    clock.advance(10)
    await presence.on_heartbeat(incoming(codec.encode(make_beat(500))))
    seen = presence.get("srv1")
    assert seen is not None
    assert seen.beat.seq == 500


async def test_whoever_watches_hears_of_changes(presence: Presence) -> None:
    async with presence.subscribe() as changed:
        presence.take("srv1", make_beat())
        assert await anext(changed) == "srv1"


def test_online_clients_are_those_of_servers_that_are_online(presence: Presence, clock: FakeClock) -> None:
    presence.take("srv1", make_beat(online=(1, 2)))
    clock.advance(20)
    presence.take("srv2", make_beat(online=(2, 3)))
    assert presence.online_clients() == {1, 2, 3}
    clock.advance(10)
    assert presence.online_clients() == {2, 3}
