"""The second factor: set-up, sign-in in two steps, replay, guessing, races, and the ways out."""

import base64
from pathlib import Path

import pytest
from sqlalchemy import select

from harness.controller import PASSWORD, make_context
from harness.hostile import stranger_of
from harness.people import ELSEWHERE, HOME, add_admin, decode, enter, with_totp
from xfleet_controller.account import service as account
from xfleet_controller.admins import service as admins
from xfleet_controller.auth import second_factor, totp
from xfleet_controller.auth import service as auth
from xfleet_controller.auth.models import Admin, Session
from xfleet_controller.auth.throttle import TooManyTries
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_controller.errors import Invalid
from xfleet_runtime.clock import FakeClock

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""What two do at once is in test_people_at_once.py, on both databases."""


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


async def test_a_password_alone_is_not_enough_once_a_second_factor_is_on(context: Context, clock: FakeClock) -> None:
    anna = await add_admin(context, "anna")
    app = await with_totp(context, clock, anna)
    made = await auth.sign_in_with_code(context, await challenge_of(context), app.code(), address=ELSEWHERE)
    assert made.actor.name == "anna"
    clock.advance(60)
    assert (await enter(context, "anna", code=app.code())).admin_id == anna.admin_id


async def test_the_api_asks_for_a_code_by_a_word_and_takes_it_beside_the_password(
    context: Context, clock: FakeClock
) -> None:
    app = await with_totp(context, clock, await add_admin(context, "anna"))
    body = {"username": "anna", "password": PASSWORD}
    async with stranger_of(context) as api:
        asked = await api.post("/api/v1/session", json=body)
        assert (asked.status_code, asked.json()["code"]) == (401, "totp_required")
        assert "challenge" not in asked.text
        wrong = await api.post("/api/v1/session", json=body | {"code": app.wrong()})
        assert (wrong.status_code, wrong.json()["code"]) == (401, "wrong_code")
        right = await api.post("/api/v1/session", json=body | {"code": app.code()})
        assert right.status_code == 201
        guess = await api.post("/api/v1/session", json=body | {"password": "guess", "code": app.code()})
        assert guess.json()["code"] == "wrong_password"


async def test_a_browser_signs_in_in_two_steps(context: Context, clock: FakeClock) -> None:
    app = await with_totp(context, clock, await add_admin(context, "anna"))
    async with stranger_of(context, address=ELSEWHERE) as browser:
        first = await browser.post("/login", data={"username": "anna", "password": PASSWORD, "next": "/tasks"})
        assert "set-cookie" not in first.headers
        assert PASSWORD not in first.text
        challenge = first.text.partition('name="challenge" value="')[2].partition('"')[0]
        fields = {"challenge": challenge, "next": "/tasks"}
        wrong = await browser.post("/login/code", data=fields | {"code": app.wrong()})
        assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
        assert challenge in wrong.text
        right = await browser.post("/login/code", data=fields | {"code": app.code()})
        assert (right.status_code, right.headers["location"]) == (303, "/tasks")
        assert (await browser.get("/tasks")).status_code == 200


async def test_a_forged_note_of_the_first_step_is_worth_nothing(context: Context) -> None:
    foreign = context.vault.seal_value("something else", {"admin_id": 1, "password": "", "until_s": 2**40})
    for forged in ("", "x", "é" * 40, "A" * 80, "A" * 100_000, base64.urlsafe_b64encode(foreign).decode()):
        with pytest.raises(auth.ChallengeOver):
            await auth.sign_in_with_code(context, forged, "000000", address=ELSEWHERE)


async def test_the_note_of_the_first_step_ends_with_time_password_and_account(
    context: Context, clock: FakeClock
) -> None:
    anna = await add_admin(context, "anna")
    app = await with_totp(context, clock, anna)
    old = await challenge_of(context)
    clock.advance(second_factor.CHALLENGE_S + 1)
    with pytest.raises(auth.ChallengeOver):
        await auth.sign_in_with_code(context, old, app.code(), address=ELSEWHERE)
    before_change = await challenge_of(context)
    await account.change_password(context, anna, PASSWORD, "another good one")
    with pytest.raises(auth.ChallengeOver):
        await auth.sign_in_with_code(context, before_change, app.code(), address=ELSEWHERE)


async def test_somebody_with_the_password_cannot_try_codes_for_long(context: Context, clock: FakeClock) -> None:
    """Not from one place, not from everywhere, not by passing the first step again."""
    app = await with_totp(context, clock, await add_admin(context, "anna"))
    tried = 0
    for hour in range(8):
        for each in range(10):
            place = f"198.51.{hour}.{each}"
            with pytest.raises((auth.WrongCode, TooManyTries)) as refused:
                await auth.sign_in_with_code(context, await challenge_of(context, place), app.wrong(), address=place)
            tried += refused.type is auth.WrongCode
        clock.advance(3600)
    assert tried <= 5 + 8 * 3


async def test_wrong_names_typed_at_sign_in_do_not_hold_up_anybodys_codes(context: Context, clock: FakeClock) -> None:
    anna = await add_admin(context, "anna")
    app = await with_totp(context, clock, anna)
    for name in (f"TOTP#{anna.admin_id}", f"totp#{anna.admin_id}"):
        for each in range(12):
            with pytest.raises((auth.WrongPassword, TooManyTries)):
                await auth.sign_in(context, name, "guess", address=f"198.51.100.{each}")
    made = await auth.sign_in_with_code(context, await challenge_of(context), app.code(), address=ELSEWHERE)
    assert made.token


async def test_the_owner_gets_in_from_home_while_others_try_codes(context: Context, clock: FakeClock) -> None:
    app = await with_totp(context, clock, await add_admin(context, "anna"))
    for each in range(10):
        place = f"198.51.100.{each}"
        note = await challenge_of(context, place)
        with pytest.raises((auth.WrongCode, TooManyTries)):
            await auth.sign_in_with_code(context, note, app.wrong(), address=place)
    with pytest.raises(TooManyTries):
        await auth.sign_in_with_code(context, await challenge_of(context), app.code(), address=ELSEWHERE)
    assert await auth.sign_in_with_code(context, await challenge_of(context, HOME), app.code(), address=HOME)


async def test_setting_up_needs_the_password_and_a_first_code_and_ends_other_sessions(
    context: Context, clock: FakeClock
) -> None:
    anna = await add_admin(context, "anna")
    await enter(context, "anna", address=ELSEWHERE)
    with pytest.raises(Invalid):
        await account.begin_totp(context, anna, "guess")
    with pytest.raises(account.TotpOff):
        await account.confirm_totp(context, anna, "000000")
    await account.begin_totp(context, anna, PASSWORD)
    await enter(context, "anna", address=ELSEWHERE)  # an unfinished set-up asks for nothing
    app = await with_totp(context, clock, anna)
    async with context.database.read() as session:
        rows = (await session.scalars(select(Session))).all()
        admin = (await session.scalars(select(Admin))).one()
    assert [row.token_sha256 for row in rows] == [anna.session]
    assert app.secret not in (admin.totp_sealed or b"")
    with pytest.raises(account.TotpOn):
        await account.begin_totp(context, anna, PASSWORD)


async def test_turning_it_off_needs_password_and_code(context: Context, clock: FakeClock) -> None:
    anna = await add_admin(context, "anna")
    app = await with_totp(context, clock, anna)
    for password, code in ((PASSWORD, app.wrong()), ("guess", app.code()), (PASSWORD, "")):
        with pytest.raises(Invalid):
            await account.disable_totp(context, anna, password, code)
    fresh = await account.renew_recovery_codes(context, anna, PASSWORD, app.code())
    with pytest.raises(Invalid):
        await account.disable_totp(context, anna, PASSWORD, app.recovery_codes[0])
    await account.disable_totp(context, anna, PASSWORD, fresh[0])
    await enter(context, "anna")
    assert await account.get_second_factor(context, anna) == account.SecondFactor(on=False)


async def test_an_owner_removes_anothers_second_factor_but_not_the_own(context: Context, clock: FakeClock) -> None:
    anna, boss = await add_admin(context, "anna", "support"), await add_admin(context, "boss")
    await with_totp(context, clock, anna)
    await with_totp(context, clock, boss)
    with pytest.raises(admins.OwnAccount):
        await admins.remove_totp(context, boss, boss.admin_id or 0)
    await admins.remove_totp(context, boss, anna.admin_id or 0)
    await enter(context, "anna")


async def test_the_page_shows_secret_and_codes_once(context: Context, clock: FakeClock) -> None:
    await add_admin(context, "anna")
    made = await auth.sign_in(context, "anna", PASSWORD, address="127.0.0.1", kind="cookie")
    async with stranger_of(context) as browser:
        browser.headers.update({"cookie": f"{auth.COOKIE}={made.token}", "x-csrf-token": made.actor.csrf_token})
        page = (await browser.post("/settings/totp", data={"totp_password": PASSWORD})).text
        secret = page.partition('id="totp-secret"')[2].partition('value="')[2].partition('"')[0]
        assert "<svg" in page.partition('id="totp"')[2]
        assert secret not in (await browser.get("/settings")).text
        again = await browser.post("/settings/totp/confirm", data={"totp_code": "12"})
        assert (again.status_code, "is not the one" in again.text) == (422, True)
        code = totp.code_at(decode(secret), int(clock.now().timestamp()) // totp.STEP_S)
        done = (await browser.post("/settings/totp/confirm", data={"totp_code": code})).text
        codes = [part.partition("</code>")[0] for part in done.split("<li><code>")[1:]]
        assert len(codes) == totp.RECOVERY_COUNT
        assert codes[0] not in (await browser.get("/settings")).text
        clock.advance(60)
        fields = {"totp_password": PASSWORD, "totp_code": codes[0]}
        assert (await browser.post("/settings/totp/disable", data=fields)).status_code == 303
