"""Two who do the same at the same moment, on both databases: one code, one link, and the last two owners."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select

from harness.controller import PASSWORD, make_context
from harness.people import ELSEWHERE, add_admin, bearer, enter, token_of, with_totp
from xfleet_controller.account import service as account
from xfleet_controller.admins import service as admins
from xfleet_controller.auth import service as auth
from xfleet_controller.auth import totp
from xfleet_controller.auth.models import Admin, RecoveryCode, Session
from xfleet_controller.auth.rights import OWNER, SYSTEM, Forbidden
from xfleet_controller.auth.throttle import TooManyTries
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_runtime.clock import FakeClock

pytestmark = pytest.mark.postgres


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def context(database: Database, tmp_path: Path, clock: FakeClock) -> Context:
    return make_context(database, tmp_path, clock=clock)


async def challenge_of(context: Context, address: str = ELSEWHERE) -> str:
    with pytest.raises(auth.TotpRequired) as asked:
        await auth.sign_in(context, "anna", PASSWORD, address=address, kind="cookie")
    return asked.value.challenge


def kinds(answers: list[object]) -> Counter[str]:
    return Counter(type(each).__name__ for each in answers)


async def test_a_code_works_once_whoever_comes_first(context: Context, clock: FakeClock) -> None:
    app = await with_totp(context, clock, await add_admin(context, "anna"))
    notes = [await challenge_of(context) for _ in range(4)]
    tries = (auth.sign_in_with_code(context, note, app.code(), address=ELSEWHERE) for note in notes)
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(type(each).__name__ for each in answers) == ["SignedIn", "WrongCode", "WrongCode", "WrongCode"]


async def test_a_recovery_code_works_once_also_in_a_race(context: Context, clock: FakeClock) -> None:
    app = await with_totp(context, clock, await add_admin(context, "anna"))
    notes = [await challenge_of(context) for _ in range(4)]
    code = app.recovery_codes[3].lower().replace("-", " ")
    tries = (auth.sign_in_with_code(context, note, code, address=ELSEWHERE) for note in notes)
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(each) for each in answers].count(auth.SignedIn) == 1
    async with context.database.read() as session:
        rows = (await session.scalars(select(RecoveryCode))).all()
    assert (len(rows), len([row for row in rows if row.used_at])) == (totp.RECOVERY_COUNT, 1)
    assert code.replace(" ", "").upper() not in str([row.code_sha256 for row in rows])


async def test_a_burst_of_codes_is_looked_at_one_after_the_other(context: Context, clock: FakeClock) -> None:
    app = await with_totp(context, clock, await add_admin(context, "anna"))
    places = [f"198.51.100.{each}" for each in range(20)]
    notes = [await challenge_of(context, place) for place in places]
    tries = (
        auth.sign_in_with_code(context, note, app.wrong(), address=place)
        for note, place in zip(notes, places, strict=True)
    )
    found = kinds(await asyncio.gather(*tries, return_exceptions=True))
    assert found == {"WrongCode": 5, "TooManyTries": 15}
    with pytest.raises(TooManyTries):
        await auth.sign_in_with_code(context, notes[0], app.code(), address=ELSEWHERE)


async def test_two_owners_who_demote_each_other_leave_one(context: Context) -> None:
    one, two = await add_admin(context, "one"), await add_admin(context, "two")
    demote = admins.AdminEdit(role="support")
    answers = await asyncio.gather(
        admins.edit_admin(context, one, two.admin_id or 0, demote),
        admins.edit_admin(context, two, one.admin_id or 0, demote),
        return_exceptions=True,
    )
    assert kinds(list(answers)) == {"AdminView": 1, "Forbidden": 1}


async def test_the_last_owner_stays_whatever_owners_do_at_once(context: Context) -> None:
    owners = [await add_admin(context, f"owner{each}") for each in range(4)]
    ids = [owner.admin_id or 0 for owner in owners]
    edits = (admins.AdminEdit(role="operator"), admins.AdminEdit(enabled=False))
    moves = [admins.edit_admin(context, owner, ids[at], edits[at % 2]) for at, owner in enumerate(owners)]
    moves += [admins.edit_admin(context, owner, ids[at - 1], edits[at % 2]) for at, owner in enumerate(owners)]
    moves += [admins.delete_admin(context, owner, ids[at - 2]) for at, owner in enumerate(owners)]  # type: ignore[misc]
    answers = await asyncio.gather(*moves, return_exceptions=True)
    refusals = {type(each) for each in answers if isinstance(each, BaseException)}
    assert refusals <= {admins.LastOwner, Forbidden, admins.NotFound}
    async with context.database.read() as session:
        left = await session.scalars(select(Admin).where(Admin.role == OWNER, Admin.enabled.is_(True)))
        assert len(left.all()) >= 1


async def test_a_link_is_used_by_who_comes_first(context: Context) -> None:
    view, invite = await admins.create_admin(context, SYSTEM, admins.AdminNew(name="anna", role="support"))
    passwords = [f"password number {each}" for each in range(4)]
    answers = await asyncio.gather(
        *(admins.accept_invite(context, invite.token, each, address=ELSEWHERE) for each in passwords),
        return_exceptions=True,
    )
    assert kinds(list(answers)) == {"str": 1, "InviteOver": 3}
    first = passwords[next(at for at, each in enumerate(answers) if each == "anna")]
    assert (await auth.sign_in(context, "anna", first, address=ELSEWHERE)).actor.admin_id == view.row.id


async def test_disabling_leaves_no_session_and_no_token_however_they_race(context: Context) -> None:
    boss, anna = await add_admin(context, "boss"), await add_admin(context, "anna", "operator")
    disable = admins.edit_admin(context, boss, anna.admin_id or 0, admins.AdminEdit(enabled=False))
    answers = await asyncio.gather(
        enter(context, "anna"), token_of(context, anna, "clients.read"), disable, token_of(context, anna, "*"),
        enter(context, "anna", address=ELSEWHERE), return_exceptions=True,
    )  # fmt: skip
    for token in (each for each in answers if isinstance(each, str)):
        with pytest.raises(auth.NotSignedIn):
            await bearer(context, token)
    async with context.database.read() as session:
        assert (await session.scalars(select(Session).where(Session.admin_id == anna.admin_id))).all() == []


async def test_a_password_that_was_reset_is_not_overwritten_by_its_old_holder(context: Context) -> None:
    boss, thief = await add_admin(context, "boss"), await add_admin(context, "anna", "operator")
    held, go_on = asyncio.Event(), asyncio.Event()
    make = context.passwords.hash

    async def slow(password: str) -> str:
        found = await make(password)
        held.set()
        await go_on.wait()
        return found

    context.passwords.hash = slow  # type: ignore[method-assign]
    late = asyncio.ensure_future(account.change_password(context, thief, PASSWORD, "the thief's password"))
    await held.wait()
    context.passwords.hash = make  # type: ignore[method-assign]
    await admins.reset_password(context, boss, thief.admin_id or 0, "the new password")
    go_on.set()
    with pytest.raises(auth.NotSignedIn):
        await late
    assert await auth.sign_in(context, "anna", "the new password", address=ELSEWHERE)
