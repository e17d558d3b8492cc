"""Admins, API tokens, the own account and the audit log: what each may, and how it could be got round."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import event, select

from harness.controller import PASSWORD, REALITY, add_server, make_context
from harness.hostile import stranger_of
from harness.people import ELSEWHERE, HOME, add_admin, bearer, enter, token_of
from xfleet_contracts.control import BindRequest
from xfleet_controller.account import service as account
from xfleet_controller.admins import service as admins
from xfleet_controller.audit import service as audit
from xfleet_controller.audit.models import AuditRow
from xfleet_controller.audit.store import AuditFilter
from xfleet_controller.auth import service as auth
from xfleet_controller.auth.models import Admin, ApiToken
from xfleet_controller.auth.rights import SYSTEM, Actor, Forbidden, may
from xfleet_controller.auth.service import TOUCH_AFTER
from xfleet_controller.bot import service as bot
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_controller.errors import Invalid, NotFound
from xfleet_controller.tokens import service as tokens
from xfleet_runtime.clock import FakeClock

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""What two do at once is in test_people_at_once.py, on both databases."""
DAY_S = 86400


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def context(database: Database, tmp_path: Path, clock: FakeClock) -> Context:
    return make_context(database, tmp_path, clock=clock)


@pytest.fixture
async def boss(context: Context) -> Actor:
    return await add_admin(context, "boss")


def api_of(context: Context, token: str) -> httpx.AsyncClient:
    return stranger_of(context, address=ELSEWHERE, headers={"authorization": f"Bearer {token}"})


# Admins


async def test_the_last_owner_can_be_neither_demoted_nor_disabled_nor_deleted(context: Context, boss: Actor) -> None:
    mine = boss.admin_id or 0
    await add_admin(context, "anna", "operator")
    await admins.create_admin(context, boss, admins.AdminNew(name="invited", role="owner"))
    for edit in (admins.AdminEdit(role="operator"), admins.AdminEdit(enabled=False)):
        with pytest.raises(admins.LastOwner):
            await admins.edit_admin(context, boss, mine, edit)
    with pytest.raises(admins.LastOwner):
        await admins.delete_admin(context, SYSTEM, mine)
    await add_admin(context, "second")
    assert (await admins.edit_admin(context, boss, mine, admins.AdminEdit(role="support"))).row.role == "support"


@pytest.mark.parametrize("change", ["role", "disabled", "reset", "own password", "deleted"])
async def test_whatever_changes_an_admins_rights_ends_what_acts_in_its_name(
    context: Context, boss: Actor, change: str
) -> None:
    anna = await add_admin(context, "anna", "operator")
    made = await auth.sign_in(context, "anna", PASSWORD, address=HOME)
    token = await token_of(context, anna, "clients.read")
    await bearer(context, token)
    target = anna.admin_id or 0
    if change == "role":
        await admins.edit_admin(context, boss, target, admins.AdminEdit(role="support"))
    elif change == "disabled":
        await admins.edit_admin(context, boss, target, admins.AdminEdit(enabled=False))
    elif change == "reset":
        await admins.reset_password(context, boss, target, "another good one")
    elif change == "own password":
        await account.change_password(context, anna, PASSWORD, "another good one")
    else:
        await admins.delete_admin(context, boss, target)
    for ended in (made.token, token):
        with pytest.raises(auth.NotSignedIn):
            await bearer(context, ended)


async def test_the_machines_own_token_outlives_a_changed_password_but_no_reset(context: Context, boss: Actor) -> None:
    anna = await add_admin(context, "anna")
    token = await token_of(context, anna, "*")
    async with context.database.write() as session:  # as `cli-credentials` makes it, for root on the machine
        (await session.scalars(select(ApiToken))).one().expires_at = None
    await account.change_password(context, anna, PASSWORD, "another good one")
    assert (await bearer(context, token)).name == "anna"
    await admins.reset_password(context, boss, anna.admin_id or 0)
    with pytest.raises(auth.NotSignedIn):
        await bearer(context, token)


async def test_an_edit_that_changes_nothing_ends_nothing(context: Context, boss: Actor) -> None:
    mine = boss.admin_id or 0
    token = await token_of(context, boss, "clients.read")
    await admins.edit_admin(context, boss, mine, admins.AdminEdit(role="owner", enabled=True))
    assert (await bearer(context, token)).admin_id == mine


async def test_a_link_lets_an_admin_choose_a_password_once_and_for_a_day(
    context: Context, boss: Actor, clock: FakeClock
) -> None:
    async with stranger_of(context) as browser:
        _, invite = await admins.create_admin(context, boss, admins.AdminNew(name="anna", role="support"))
        for password in ("", "nobody has this password"):
            with pytest.raises(auth.WrongPassword):
                await auth.sign_in(context, "anna", password, address=HOME)
        page = await browser.get(f"/invite/{invite.token}")
        assert (page.status_code, "anna" in page.text) == (200, True)
        assert page.headers["cache-control"] == "no-store"
        fields = {"token": invite.token, "password": "short", "repeat_password": "short"}
        assert (await browser.post("/invite", data=fields)).status_code == 422
        fields |= {"password": PASSWORD, "repeat_password": PASSWORD}
        assert (await browser.post("/invite", data=fields)).status_code == 303
        for again in (await browser.post("/invite", data=fields), await browser.get(f"/invite/{invite.token}")):
            assert again.status_code == 410
            assert "not valid any more" in again.text
        await enter(context, "anna")
        late = await admins.reset_password(context, boss, 2)
        with pytest.raises(auth.WrongPassword):
            await enter(context, "anna")
        clock.advance(DAY_S)
        answer = await browser.post("/api/v1/invites", json={"token": late.token, "password": PASSWORD})
        assert (answer.status_code, answer.json()["code"]) == (410, "invite_over")


async def test_no_link_opens_for_somebody_who_was_disabled_meanwhile(context: Context, boss: Actor) -> None:
    view, invite = await admins.create_admin(context, boss, admins.AdminNew(name="anna", role="support"))
    for enabled in (False, True):
        await admins.edit_admin(context, boss, view.row.id, admins.AdminEdit(enabled=enabled))
        with pytest.raises(admins.InviteOver):
            await admins.accept_invite(context, invite.token, PASSWORD, address=ELSEWHERE)


NAMES = ("", " ", "a b", "x\r\nset-cookie: a=b", "админ", "аdmin", "<b>", "a\u202eb", "a" * 65, "-x", "\x00", "a/b")
"""Empty, spaced, for headers, look-alike, for pages, turned round, long, and so on."""


async def test_a_name_that_could_deceive_or_break_something_is_refused(context: Context, boss: Actor) -> None:
    for name in NAMES:
        with pytest.raises(Invalid) as refused:
            await admins.create_admin(context, boss, admins.AdminNew(name=name, role="support", password=PASSWORD))
        assert refused.value.errors[0].field == "name"


async def test_a_name_is_taken_in_any_case(context: Context, boss: Actor) -> None:
    with pytest.raises(Invalid) as refused:
        await admins.create_admin(context, boss, admins.AdminNew(name="BOSS", role="support"))
    assert refused.value.errors[0].code == "name_taken"


EDITS: tuple[dict[str, Any], ...] = (
    {"id": 1}, {"password_hash": "x"}, {"name": "boss2"}, {"role": "root"}, {"role": "*"}, {"role": None},
        {"role": ["owner"]}, {"enabled": "yes"}, {"admin_id": 1}, {"totp_confirmed_at": None}, {"scopes": ["*"]},
)  # fmt: skip


async def test_an_edit_takes_no_field_it_should_not(context: Context, boss: Actor) -> None:
    anna = await add_admin(context, "anna", "support")
    made = await auth.sign_in(context, "boss", PASSWORD, address=HOME)
    assert boss.admin_id
    async with api_of(context, made.token) as api:
        for body in EDITS:
            answer = await api.patch(f"/api/v1/admins/{anna.admin_id}", json=body)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), body
        shown = (await api.get(f"/api/v1/admins/{anna.admin_id}")).json()
        assert (shown["name"], shown["role"], shown["enabled"]) == ("anna", "support", True)


async def test_who_is_no_owner_cannot_make_itself_one(context: Context, boss: Actor) -> None:
    anna = await add_admin(context, "anna", "operator")
    made = await auth.sign_in(context, "anna", PASSWORD, address=HOME)
    async with api_of(context, made.token) as api:
        tries = [
            await api.patch(f"/api/v1/admins/{anna.admin_id}", json={"role": "owner"}),
            await api.post("/api/v1/admins", json={"name": "eve", "role": "owner", "password": PASSWORD}),
            await api.post(f"/api/v1/admins/{boss.admin_id}/password", json={"password": PASSWORD}),
            await api.delete(f"/api/v1/admins/{boss.admin_id}/totp"),
            await api.delete(f"/api/v1/admins/{boss.admin_id}"),
        ]
    assert [(answer.status_code, answer.json()["code"]) for answer in tries] == [(403, "forbidden")] * len(tries)


async def test_an_owner_whose_role_was_taken_a_moment_ago_changes_nothing(context: Context, boss: Actor) -> None:
    former = await add_admin(context, "former")
    await admins.edit_admin(context, boss, former.admin_id or 0, admins.AdminEdit(role="support"))
    with pytest.raises(Forbidden):
        await admins.create_admin(context, former, admins.AdminNew(name="eve", role="owner", password=PASSWORD))
    with pytest.raises(Forbidden):
        await tokens.create_token(context, former, tokens.TokenNew(name="x", scopes=["*"]))


async def test_an_owner_resets_no_own_password_without_knowing_it(context: Context, boss: Actor) -> None:
    with pytest.raises(admins.OwnAccount):
        await admins.reset_password(context, boss, boss.admin_id or 0, "a stolen session")


async def test_a_reset_lets_go_of_telegram_accounts_and_codes(context: Context, boss: Actor) -> None:
    anna = await add_admin(context, "anna", "support")
    await bot.bind(context, BindRequest(telegram_id=7, code=(await bot.make_code(context, anna)).code))
    waiting = await bot.make_code(context, anna)
    await admins.reset_password(context, boss, anna.admin_id or 0, "another good one")
    with pytest.raises(bot.NotBound):
        await bot.who_is(context, 7)
    with pytest.raises(bot.CodeRefused):
        await bot.bind(context, BindRequest(telegram_id=8, code=waiting.code))


# API tokens


async def test_a_token_works_as_bearer_of_the_api_and_nowhere_else(
    context: Context, boss: Actor, clock: FakeClock
) -> None:
    token = await token_of(context, boss, "clients.*", days=1)
    async with api_of(context, token) as api:
        who = (await api.get("/api/v1/session")).json()
        assert who == {"username": "boss", "role": "owner", "token_name": "script", "scopes": ["clients.*"]}
        assert (await api.post("/api/v1/clients", json={"name": "alice"})).status_code == 201
        assert (await api.get("/api/v1/servers")).status_code == 403
        assert (await api.get("/clients")).status_code == 303
        clock.advance(DAY_S)
        assert (await api.get("/api/v1/clients")).status_code == 401
    async with stranger_of(context) as stranger:
        fresh = await token_of(context, boss, "clients.*")
        for query in (f"token={fresh}", f"access_token={fresh}", f"authorization=Bearer+{fresh}", f"api_key={fresh}"):
            assert (await stranger.get(f"/api/v1/clients?{query}")).status_code == 401
        for headers in ({"cookie": f"{auth.COOKIE}={fresh}"}, {"x-api-key": fresh}, {"authorization": fresh}):
            assert (await stranger.get("/api/v1/clients", headers=headers)).status_code == 401


async def test_the_database_knows_a_token_only_by_its_hash_and_when_it_was_used(
    context: Context, boss: Actor, clock: FakeClock
) -> None:
    token = await token_of(context, boss, "clients.read")
    assert token.startswith("xf_")
    clock.advance(TOUCH_AFTER.total_seconds() + 1)
    await bearer(context, token)
    async with context.database.read() as session:
        row = (await session.scalars(select(ApiToken))).one()
        rows = (await session.scalars(select(AuditRow))).all()
    assert row.last_used_at == clock.now()
    assert token not in str(vars(row)) + str([vars(each) for each in rows])


async def test_what_a_token_does_is_written_down_under_its_name(context: Context, boss: Actor) -> None:
    async with api_of(context, await token_of(context, boss, "clients.*")) as api:
        await api.post("/api/v1/clients", json={"name": "alice"})
    found = await audit.list_rows(context, boss, AuditFilter(action="add_client"))
    assert [(row.actor, row.address) for row in found.rows] == [("token:boss/script", ELSEWHERE)]


async def test_a_revoked_token_is_over_and_only_its_admin_or_an_owner_revokes_it(context: Context, boss: Actor) -> None:
    anna, eve = await add_admin(context, "anna", "support"), await add_admin(context, "eve", "operator")
    token = await token_of(context, anna, "clients.read")
    token_id = (await bearer(context, token)).token_id or 0
    with pytest.raises(NotFound):
        await tokens.revoke_token(context, eve, token_id)
    with pytest.raises(Forbidden):
        await tokens.list_tokens(context, eve, anna.admin_id)
    await tokens.revoke_token(context, boss, token_id)
    with pytest.raises(auth.NotSignedIn):
        await bearer(context, token)
    with pytest.raises(NotFound):
        await tokens.revoke_token(context, anna, token_id)


TOO_MUCH = (
    ("support", "inbounds.write", "not_yours"), ("support", "servers.*", "not_yours"),
        ("owner", "account.write", "not_yours"), ("owner", "bot.write", "not_yours"), ("owner", "bot.*", "not_yours"),
        ("operator", "tokens.write", "not_yours"), ("operator", "admins.write", "not_yours"),
        ("owner", "nonsense", "unknown_scope"), ("owner", "", "unknown_scope"),
        ("owner", "clients.**", "unknown_scope"), ("owner", "**", "unknown_scope"),
)  # fmt: skip


async def test_a_token_is_given_no_more_than_its_maker_may_give(context: Context) -> None:
    makers = {role: await add_admin(context, role, role) for role in ("owner", "operator", "support")}
    for role, scope, code in TOO_MUCH:
        new = tokens.TokenNew(name="x", scopes=["clients.read", scope])
        with pytest.raises(Invalid) as refused:
            await tokens.create_token(context, makers[role], new)
        assert refused.value.errors[0].code == code, (role, scope)


async def test_a_token_with_wrong_fields_is_not_made(context: Context, boss: Actor) -> None:
    for body in ({"days": 0}, {"days": 100_000}, {"scopes": []}, {"name": " "}, {"name": "a\nb"}):
        new = msgspec.convert({"name": "x", "scopes": ["*"]} | body, tokens.TokenNew)
        with pytest.raises(Invalid):
            await tokens.create_token(context, boss, new)


async def test_a_token_makes_tokens_only_when_named_so_and_never_longer_or_wider_than_itself(
    context: Context, boss: Actor
) -> None:
    everything = await bearer(context, await token_of(context, boss, "*"))
    with pytest.raises(Forbidden):
        await tokens.create_token(context, everything, tokens.TokenNew(name="x", scopes=["*"]))
    with pytest.raises(Forbidden):
        await admins.create_admin(context, everything, admins.AdminNew(name="eve", role="owner"))
    maker = await bearer(context, await token_of(context, boss, "tokens.write", "clients.read", days=2))
    for wider in ("*", "clients.*", "admins.write", "servers.read"):
        with pytest.raises(Invalid):
            await tokens.create_token(context, maker, tokens.TokenNew(name="x", scopes=[wider]))
    child = await tokens.create_token(context, maker, tokens.TokenNew(name="x", scopes=["clients.read"], days=700))
    async with context.database.read() as session:
        parent = await session.get_one(ApiToken, maker.token_id)
    assert child.row.expires_at == parent.expires_at


async def test_a_token_shrinks_with_the_role_of_its_admin(context: Context, boss: Actor) -> None:
    token = await token_of(context, boss, "*", "admins.*")
    async with context.database.write() as session:  # past the service, which would have revoked it
        (await session.get_one(Admin, boss.admin_id)).role = "read-only"
    now = await bearer(context, token)
    allowed = [may(now, action) for action in ("clients.read", "clients.write", "admins.read", "inbounds.write")]
    assert allowed == [True, False, False, False]


# Secrets


async def test_keys_and_links_are_for_those_who_may_use_them(context: Context, boss: Actor) -> None:
    server = await add_server(context)
    owner = await auth.sign_in(context, "boss", PASSWORD, address=HOME)
    async with api_of(context, owner.token) as api:
        inbound = (await api.post("/api/v1/inbounds", json={**REALITY, "server_id": server.id})).json()
        body = {"name": "alice", "inbound_ids": [inbound["id"]]}
        client = (await api.post("/api/v1/clients", json=body)).json()
    private = inbound["stream_settings"]["realitySettings"]["privateKey"]
    sub_id, link = client["sub_id"], client["links"][0]
    assert private
    for role, sees in (("operator", (True, True)), ("support", (False, True)), ("read-only", (False, False))):
        await add_admin(context, role.replace("-", ""), role)
        made = await auth.sign_in(context, role.replace("-", ""), PASSWORD, address=HOME)
        texts: list[str] = []
        async with api_of(context, made.token) as api:
            for path in (
                f"/api/v1/inbounds/{inbound['id']}", "/api/v1/inbounds", f"/api/v1/clients/{client['id']}",
                "/api/v1/clients", "/api/v1/tasks",
            ):  # fmt: skip
                texts += [(await api.get(path)).text]
            for path in (f"/inbounds/{inbound['id']}/edit", f"/clients/{client['id']}", "/clients", "/inbounds"):
                texts += [(await api.get(path)).text]
        found = "".join(texts)
        assert (private in found, sub_id in found or link in found) == sees, role
        assert "serverNames" in texts[0]


# The own account


async def test_a_session_is_named_without_telling_its_hash(context: Context, boss: Actor) -> None:
    made = await auth.sign_in(context, "boss", PASSWORD, address=HOME)
    async with api_of(context, made.token) as api:
        rows = (await api.get("/api/v1/account/sessions")).json()
        assert all(len(row["id"]) == account.ID_LENGTH for row in rows)
        assert boss.session not in str(rows)
        assert (await api.delete(f"/api/v1/account/sessions/{boss.session}")).status_code == 404
        other = next(row["id"] for row in rows if not row["current"])
        assert (await api.delete(f"/api/v1/account/sessions/{other}")).status_code == 204


async def test_nobody_ends_the_sessions_of_somebody_else(context: Context, boss: Actor) -> None:
    eve = await add_admin(context, "eve", "operator")
    (row,) = await account.list_sessions(context, boss)
    with pytest.raises(NotFound):
        await account.revoke_session(context, eve, account.session_id(row))
    await account.sign_out_everywhere(context, eve)
    assert len(await account.list_sessions(context, boss)) == 1
    assert await account.list_sessions(context, eve) == []


async def test_a_telegram_account_is_let_go_by_its_own_admin_alone(context: Context, boss: Actor) -> None:
    eve = await add_admin(context, "eve", "operator")
    await bot.bind(context, BindRequest(telegram_id=7, code=(await bot.make_code(context, boss)).code, name="Boss"))
    with pytest.raises(NotFound):
        await bot.unbind(context, eve, 7)
    assert [row.telegram_id for row in await bot.list_bindings(context, boss)] == [7]
    await bot.unbind(context, boss, 7)
    with pytest.raises(bot.NotBound):
        await bot.who_is(context, 7)


async def test_an_unknown_name_costs_what_a_known_one_costs(context: Context, boss: Actor) -> None:
    """The same questions to the database and the same hashing, so that no clock tells which names there are."""
    work: list[str] = []
    event.listen(context.database.engine.sync_engine, "before_cursor_execute", lambda *args: work.append(args[2]))
    fits = context.passwords.fits

    async def watched(stored: str | None, password: str) -> bool:
        work.append("hash")
        return await fits(stored, password)

    context.passwords.fits = watched  # type: ignore[method-assign]
    assert boss.admin_id
    seen: list[list[str]] = []
    for name in ("boss", "nobody", "disabled"):
        if name == "disabled":
            view, _ = await admins.create_admin(context, SYSTEM, admins.AdminNew(name=name, role="support"))
            await admins.edit_admin(context, SYSTEM, view.row.id, admins.AdminEdit(enabled=False))
        work.clear()
        with pytest.raises(auth.WrongPassword):
            await auth.sign_in(context, name, "guess", address=ELSEWHERE)
        seen.append(list(work))
    assert seen[0] == seen[1] == seen[2]
    assert seen[0].count("hash") == 1


# The audit log


async def test_the_log_tells_who_what_from_where_and_what_changed(context: Context, boss: Actor) -> None:
    anna = await add_admin(context, "anna", "support")
    made = await auth.sign_in(context, "boss", PASSWORD, address=HOME)
    async with api_of(context, made.token) as api:
        await api.patch(f"/api/v1/admins/{anna.admin_id}", json={"role": "operator"})
        page = (await api.get("/api/v1/audit?action=edit_admin")).json()
        (row,) = page["items"]
        assert (row["actor"], row["address"], row["object_name"]) == ("admin:boss", ELSEWHERE, "anna")
        assert row["changes"] == [{"path": "role", "before": "support", "after": "operator"}]
        for query, count in (
            ("by=BOSS&action=edit_admin", 1), ("by=eve", 0), ("subject=ann&action=edit_admin", 1), ("subject=%25", 0),
            ("kind=server", 0), ("since=2027-01-01T00:00:00", 0), ("until=2027-01-01T00:00:00Z&action=edit_admin", 1),
            ("by=%00", 0), ("page=900000", 0),
        ):  # fmt: skip
            found = await api.get(f"/api/v1/audit?{query}")
            assert (found.status_code, len(found.json()["items"])) == (200, count), query


async def test_the_log_is_exported_whole_and_no_spreadsheet_runs_it(
    context: Context, boss: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "BATCH_COUNT", 2)
    signed_in = await auth.sign_in(context, "boss", PASSWORD, address=HOME)
    async with api_of(context, signed_in.token) as api:
        for name in ('=cmd|"/c calc"!A1', "+1", "normal"):
            made = await api.post("/api/v1/tokens", json={"name": name, "scopes": ["*"]})
            assert made.status_code == 201, made.text
        total = (await api.get("/api/v1/audit")).json()["total"]
        sheet = await api.get("/api/v1/audit/export/csv")
        assert sheet.headers["content-disposition"] == 'attachment; filename="xfleet-audit.csv"'
        rows = list(csv.DictReader(io.StringIO(sheet.text)))
        lines = (await api.get("/api/v1/audit/export/jsonl?action=create_token")).text.splitlines()
        assert (await api.get("/api/v1/audit/export/exe")).status_code in {400, 404, 422}
    assert len(rows) == total
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@"))]
    assert sorted(json.loads(line)["object_name"] for line in lines) == ["+1", '=cmd|"/c calc"!A1', "normal"]


async def test_the_pages_of_people_show_what_there_is(context: Context, boss: Actor) -> None:
    await add_admin(context, "anna", "support")
    made = await auth.sign_in(context, "boss", PASSWORD, address="127.0.0.1", kind="cookie")
    assert boss.admin_id
    headers = {"cookie": f"{auth.COOKIE}={made.token}", "x-csrf-token": made.actor.csrf_token}
    async with stranger_of(context, headers=headers) as browser:
        assert "anna" in (await browser.get("/settings/admins")).text
        fields = {"name": "carl", "role": "read-only", "way": "link"}
        shown = (await browser.post("/settings/admins/new", data=fields)).text
        assert "/invite/" in shown
        assert "Another admin has this name." in (await browser.post("/settings/admins/new", data=fields)).text
        assert (await browser.post("/settings/admins/2/edit", data={"role": "operator"})).status_code == 303
        last = await browser.post("/settings/admins/1/delete")
        assert (last.status_code, "last owner" in last.text) == (422, True)
        token_fields = {"name": "nightly", "days": "7", "scopes": ["clients.read", "traffic.read"]}
        made_page = (await browser.post("/settings/tokens/new", data=token_fields)).text
        assert "xf_" in made_page
        listed = (await browser.get("/settings/tokens")).text
        assert "nightly" in listed
        assert "xf_" not in listed
        page = (await browser.get("/settings/audit?action=edit_admin")).text
        assert "diff-before" in page
        assert (await browser.get("/settings/audit?since=nonsense&until=9999-12-31&page=-4")).status_code == 200
        assert (await browser.get("/settings/audit/export/jsonl?by=boss")).text.count("\n") >= 3
