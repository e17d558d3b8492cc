"""Every door of the controller, tried by everybody there is, against a table written by hand (`harness.doors`)."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from harness.controller import add_server, make_context
from harness.doors import (
    ANY_TOKEN,
    CONTROLS,
    ELSEWHERE,
    NO_TOKEN,
    OPEN_CONTROLS,
    READ_ONLY,
    ROLES,
    Door,
    guarded,
    open_to_all,
)
from harness.walker import Route, Walker, all_but, find_routes, verdict_of
from xfleet_contracts import subjects
from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.rights import ACTIONS, Forbidden
from xfleet_controller.bot.service import NotBound
from xfleet_controller.context import Context
from xfleet_controller.control.desk import ControlDesk
from xfleet_controller.db import Database
from xfleet_runtime.broker import BrokerLink

DOORS = guarded()
ONLY_BY_NAME = ("tokens", "admins")
"""Areas that a token scoped to everything still does not reach."""


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'walk.db'}")
    await database.migrate()
    yield make_context(database, tmp_path)
    await database.close()


@pytest.fixture
async def walker(context: Context) -> AsyncIterator[Walker]:
    made = Walker(context)
    await made.add_admins(ROLES)
    await add_server(context)
    yield made
    await made.close()


@pytest.fixture
def routes(context: Context) -> list[Route]:
    return [route for route in find_routes(context) if route.name in DOORS]


def test_every_route_is_in_the_table_and_every_line_of_it_is_a_route(context: Context) -> None:
    there = {route.name for route in find_routes(context)}
    written = set(DOORS) | open_to_all() | ELSEWHERE
    assert (sorted(there - written), sorted(written - there)) == ([], [])
    assert not set(DOORS) & open_to_all()


async def test_strangers_get_through_no_guarded_door(walker: Walker, routes: list[Route]) -> None:
    wrong = [
        (route.name, said) for route in routes if (said := verdict_of(route, await walker.go(route))) != "stranger"
    ]
    assert wrong == []


async def test_strangers_are_heard_at_open_doors(context: Context, walker: Walker) -> None:
    doors = [route for route in find_routes(context) if route.name in open_to_all()]
    wrong = [(route.name, said) for route in doors if (said := verdict_of(route, await walker.go(route))) != "in"]
    assert wrong == []


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_gets_through_its_doors_and_no_others(walker: Walker, routes: list[Route], role: str) -> None:
    wrong: list[tuple[str, str]] = []
    for route in routes:
        (cookie,) = await walker.sessions(role, 1)
        said = verdict_of(route, await walker.go(route, cookie=cookie))
        if said != ("in" if role in DOORS[route.name].roles else "forbidden"):
            wrong.append((route.name, said))
    assert wrong == []


def reached(door: Door, *, scoped: bool, is_api: bool) -> str:
    """What a token should find at a door: pages do not know tokens."""
    if not is_api:
        return "stranger"
    return "in" if door.scope == ANY_TOKEN or (scoped and door.scope != NO_TOKEN) else "forbidden"


async def test_an_owners_token_reaches_what_it_names_and_nothing_else(walker: Walker, routes: list[Route]) -> None:
    wrong: list[tuple[str, str, str]] = []
    for route in routes:
        door = DOORS[route.name]
        named = [part for part in door.scope.split("+") if part in ACTIONS]
        assert named or door.scope in {ANY_TOKEN, NO_TOKEN}, f"{route.name} names an action there is not"
        for which, scopes in (("all but it", all_but(door.scope)), ("it alone", named)):
            token = await walker.token("keeper", scopes)
            said = verdict_of(route, await walker.go(route, token=token))
            if said != reached(door, scoped=which == "it alone", is_api=route.is_api):
                wrong.append((route.name, which, said))
    assert wrong == []


async def test_a_token_for_everything_is_bounded_by_its_admins_role(walker: Walker, routes: list[Route]) -> None:
    wrong: list[tuple[str, str, str]] = []
    for role in (READ_ONLY, "support", "keeper"):
        token = await walker.token(role, ["*"])
        for route in routes:
            door = DOORS[route.name]
            may = role == "keeper" or role in door.roles
            scoped = may and door.scope.partition(".")[0] not in ONLY_BY_NAME
            said = verdict_of(route, await walker.go(route, token=token))
            if said != reached(door, scoped=scoped, is_api=route.is_api):
                wrong.append((role, route.name, said))
    assert wrong == []


async def test_no_change_believes_a_cookie_without_the_proof_of_its_session(
    walker: Walker, routes: list[Route]
) -> None:
    wrong: list[tuple[str, str]] = []
    mine, other = await walker.sessions("keeper", 2)
    proof = {"x-csrf-token": walker.proof_of(mine)}
    tries = (
        {"x-csrf-token": ""},
        {"x-csrf-token": walker.proof_of(other)},
        {"x-csrf-token": "", "x-http-method-override": "GET"},
        {**proof, "origin": "https://evil.example"},
        {**proof, "sec-fetch-site": "cross-site"},
    )
    changes = [route for route in routes if route.changes]
    assert len(changes) > 50
    for route in changes:
        for headers in tries:
            said = verdict_of(route, await walker.go(route, cookie=mine, **headers))
            if said != "csrf":
                wrong.append((route.name, said))
    assert wrong == []


async def test_no_open_door_lets_another_site_sign_a_browser_in(context: Context, walker: Walker) -> None:
    doors = [route for route in find_routes(context) if route.name in open_to_all() and route.changes]
    assert len(doors) == 5
    for route in doors:
        for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
            assert verdict_of(route, await walker.go(route, **headers)) == "csrf", route.name


async def ask(desk: ControlDesk, subject: str, **request: object) -> str:
    """What the bus's desk says: `in`, or the kind of its refusal."""
    try:
        await desk.methods[subject](msgspec.json.encode(request))
    except Forbidden:
        return "forbidden"
    except NotBound:
        return "stranger"
    except Refusal as refusal:
        return "stranger" if refusal.code == "not_signed_in" else "in"
    return "in"


async def test_each_method_of_the_bus_answers_whom_it_should(context: Context, walker: Walker) -> None:
    desk = ControlDesk(context, svc=BrokerLink.__new__(BrokerLink))
    names = set(CONTROLS) | OPEN_CONTROLS
    assert set(desk.methods) == set(map(subjects.control, names)) | set(map(subjects.control_cli, CONTROLS))
    for method, (scope, roles, request) in CONTROLS.items():
        bot, cli = subjects.control(method), subjects.control_cli(method)
        assert await ask(desk, bot, telegram_id=424242, **request) == "stranger", method
        assert await ask(desk, cli, token="xf_of nobody", **request) == "stranger", method
        session = (await walker.sessions("keeper", 1))[0]
        assert await ask(desk, cli, token=session, **request) == "stranger", method
        for role in ROLES:
            wanted = "in" if role in roles else "forbidden"
            bound, everything = walker.telegram_id(role), await walker.token(role, ["*"])
            assert await ask(desk, bot, telegram_id=bound, **request) == wanted, (method, role)
            assert await ask(desk, cli, token=everything, **request) == wanted, (method, role)
            for said in ({"telegram_id": bound}, {"telegram_id": bound, "token": everything}, {}):
                assert await ask(desk, cli, **said, **request) == "stranger", (method, role)
            for said in ({"token": everything}, {"telegram_id": bound, "token": everything}, {}):
                assert await ask(desk, bot, **said, **request) == "stranger", (method, role)
        without = await walker.token("keeper", all_but(scope))
        wanted = "in" if scope == ANY_TOKEN else "forbidden"
        assert await ask(desk, cli, token=without, **request) == wanted, method
