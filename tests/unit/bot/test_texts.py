"""What the bot says."""

from xfleet_bot import texts
from xfleet_contracts.control import Actor, FleetStatus, ServerLine


def fleet(*lines: ServerLine) -> FleetStatus:
    return FleetStatus(servers=lines, clients_count=1, clients_online_count=0, up_bytes=0, down_bytes=0)


def test_names_are_escaped() -> None:
    assert "&lt;i&gt;" in texts.bound(Actor(admin="<i>", role="owner"))
    assert "&lt;b&gt;" in texts.status(fleet(ServerLine(slug="a", name="<b>", status="online")))


def test_a_large_fleet_fits_into_one_message_with_the_troubled_first() -> None:
    lines = [ServerLine(slug=f"s{at}", name="x" * 200, status="online") for at in range(300)]
    lines.append(ServerLine(slug="down", name="broken one", status="offline"))
    said = texts.status(fleet(*lines))
    assert len(said) <= texts.TELEGRAM_LIMIT
    assert said.startswith("🔴 <b>broken one</b>")
    assert "more" in said


def test_sizes_read_well() -> None:
    assert [texts.size(n) for n in (0, 999, 1000, 1536, 10 * 2**30, 2**62)] == [
        "0 B",
        "999 B",
        "1.0 KiB",
        "1.5 KiB",
        "10.0 GiB",
        "4096.0 PiB",
    ]
