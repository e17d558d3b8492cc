"""Guessing passwords: bursts, many addresses, the right user kept in, and what the log of it says."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import select

from harness.controller import PASSWORD, make_context
from xfleet_controller.account.service import change_password
from xfleet_controller.audit.models import AuditRow
from xfleet_controller.auth import service as auth
from xfleet_controller.auth.models import Session
from xfleet_controller.auth.throttle import IN_FLIGHT_PER_ADDRESS, TooManyTries, network_of
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_runtime.clock import FakeClock

pytestmark = pytest.mark.postgres
HOME, ELSEWHERE = "192.0.2.1", "203.0.113.9"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def context(database: Database, tmp_path: Path, clock: FakeClock) -> Context:
    made = make_context(database, tmp_path, clock=clock)
    await auth.ensure_first_admin(made, PASSWORD)
    return made


async def guess(context: Context, address: str, name: str = "admin") -> type[BaseException]:
    try:
        await auth.sign_in(context, name, "guess", address=address)
    except (auth.WrongPassword, TooManyTries) as refusal:
        return type(refusal)
    raise AssertionError("a guess was right")


async def test_a_burst_of_guesses_is_looked_at_no_faster_than_one_after_the_other(context: Context) -> None:
    answers = await asyncio.gather(*(guess(context, ELSEWHERE) for _ in range(60)))
    assert answers.count(auth.WrongPassword) <= IN_FLIGHT_PER_ADDRESS
    for _ in range(20):
        await guess(context, ELSEWHERE)
    assert await guess(context, ELSEWHERE) is TooManyTries


async def test_a_burst_from_many_addresses_waits_too(context: Context) -> None:
    answers = await asyncio.gather(*(guess(context, f"198.51.100.{each}") for each in range(100)))
    assert answers.count(TooManyTries) >= 90


async def test_guesses_from_everywhere_do_not_keep_the_owner_out(context: Context, clock: FakeClock) -> None:
    await auth.sign_in(context, "admin", PASSWORD, address=HOME)
    for each in range(40):
        await guess(context, f"198.51.100.{each}")
        clock.advance(1)
    with pytest.raises(TooManyTries):
        await auth.sign_in(context, "admin", PASSWORD, address=ELSEWHERE)
    attack = asyncio.gather(*(guess(context, f"203.0.113.{each}") for each in range(50)))
    made = await auth.sign_in(context, "admin", PASSWORD, address=HOME)
    await attack
    assert made.actor.name == "admin"


async def test_addresses_of_one_customer_count_as_one(context: Context, clock: FakeClock) -> None:
    for each in range(1, 40):
        await guess(context, f"2001:db8:1:2::{each:x}", name=f"name{each}")
    with pytest.raises(TooManyTries):
        await auth.sign_in(context, "admin", PASSWORD, address="2001:db8:1:2:ffff::1")
    await auth.sign_in(context, "admin", PASSWORD, address="2001:db8:1:3::1")
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("telegram:5") == "telegram:5"


async def test_a_session_is_not_born_of_a_password_that_was_changed_meanwhile(context: Context) -> None:
    first = await auth.sign_in(context, "admin", PASSWORD, address=HOME)
    held, go_on = asyncio.Event(), asyncio.Event()
    fits = context.passwords.fits

    async def slow(stored: str | None, password: str) -> bool:
        found = await fits(stored, password)
        held.set()
        await go_on.wait()
        return found

    context.passwords.fits = slow  # type: ignore[method-assign]
    late = asyncio.ensure_future(auth.sign_in(context, "admin", PASSWORD, address=ELSEWHERE))
    await held.wait()
    context.passwords.fits = fits  # type: ignore[method-assign]
    await change_password(context, first.actor, PASSWORD, "a new one, longer")
    go_on.set()
    with pytest.raises(auth.WrongPassword):
        await late
    async with context.database.read() as session:
        assert len((await session.scalars(select(Session))).all()) == 1


async def test_a_password_typed_into_the_field_of_the_name_is_not_written_down(context: Context) -> None:
    await guess(context, ELSEWHERE, name="My secret passw0rd")
    await guess(context, ELSEWHERE, name="admin")
    async with context.database.read() as session:
        rows = (await session.scalars(select(AuditRow).where(AuditRow.action == "sign_in_refused"))).all()
    assert [row.object_id for row in rows] == ["unknown", "admin"]
