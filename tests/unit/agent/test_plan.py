"""Plans lead from what runs to what is wanted, whatever the two are."""

from hypothesis import given
from hypothesis import strategies as st

from xfleet_agent.plan import (
    REBUILD_ABOVE,
    AddClient,
    AddInbound,
    AddOutbound,
    RemoveClient,
    RemoveInbound,
    RemoveOutbound,
    Replace,
    SetRules,
    Shape,
    after,
    plan,
)
from xfleet_contracts.desired_state import EntityKey
from xfleet_xraykit.accounts import Account

ACCOUNTS = st.sampled_from([Account("vless", {1: uuid, 2: ""}) for uuid in ("a", "b", "c")])
USERS = st.dictionaries(st.sampled_from(["1.7", "2.7", "3.7", "4.7"]), ACCOUNTS)
BODIES = st.sampled_from([b"x", b"y"])
RESTS = st.lists(st.sampled_from(["direct", "block", "warp"]), unique=True).map(lambda rest: ["first", *rest])


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    inbounds = draw(st.dictionaries(st.integers(1, 4), BODIES))
    tags = draw(RESTS)
    return Shape(
        inbounds=inbounds,
        users={ref: draw(USERS) for ref in inbounds},
        outbounds=tuple((tag, draw(BODIES)) for tag in tags),
        rules=tuple(draw(st.lists(BODIES, max_size=2))),
    )


def users_after(wanted: Shape, running: Shape, steps: tuple[object, ...]) -> dict[int, dict[str, Account]]:
    users = {ref: dict(each) for ref, each in running.users.items()}
    for step in steps:
        match step:
            case RemoveInbound(ref):
                users.pop(ref, None)
            case AddInbound(ref):
                users[ref] = dict(wanted.users[ref])
            case RemoveClient(ref, email):
                users.get(ref, {}).pop(email, None)
            case AddClient(ref, email):
                users[ref][email] = wanted.users[ref][email]
            case _:
                pass
    return users


@given(shapes(), shapes())
def test_carried_out_steps_lead_to_what_is_wanted(wanted: Shape, running: Shape) -> None:
    steps = plan(wanted, running)
    result = after(running, wanted, steps, set())
    assert dict(result.inbounds) == dict(wanted.inbounds)
    assert dict(result.outbounds) == dict(wanted.outbounds)
    assert result.rules == wanted.rules
    users = users_after(wanted, running, steps)
    assert {ref: each for ref, each in users.items() if each} == {r: dict(u) for r, u in wanted.users.items() if u}


@given(shapes())
def test_what_is_wanted_needs_no_step(shape: Shape) -> None:
    assert plan(shape, shape) == ()


@given(shapes(), shapes())
def test_removals_of_clients_and_inbounds_come_before_additions(wanted: Shape, running: Shape) -> None:
    steps = plan(wanted, running)
    added = [n for n, step in enumerate(steps) if isinstance(step, (AddClient, AddInbound))]
    removed = [n for n, step in enumerate(steps) if isinstance(step, (RemoveClient, RemoveInbound))]
    assert not added or not removed or max(removed) < min(added)


@given(shapes(), shapes())
def test_a_changed_outbound_comes_back_at_once(wanted: Shape, running: Shape) -> None:
    steps = plan(wanted, running)
    gone = {step.tag: n for n, step in enumerate(steps) if isinstance(step, RemoveOutbound)}
    come = {step.tag: n for n, step in enumerate(steps) if isinstance(step, AddOutbound)}
    assert all(come[tag] == gone[tag] + 1 for tag in gone.keys() & come.keys())


def test_a_client_that_left_is_cut_even_when_its_inbound_is_rebuilt() -> None:
    account = Account("vless", {1: "a"})
    running = Shape(inbounds={7: b"old"}, users={7: {"1.7": account, "2.7": account}})
    wanted = Shape(inbounds={7: b"new"}, users={7: {"2.7": account}})
    assert plan(wanted, running) == (RemoveClient(7, "1.7", cut=True), RemoveInbound(7), AddInbound(7))


def test_only_what_cannot_be_changed_hot_asks_for_a_new_xray() -> None:
    assert plan(Shape(fixed=b"new"), Shape(fixed=b"old")) == (Replace("settings"),)
    wanted = Shape(outbounds=(("warp", b"x"), ("direct", b"x")))
    running = Shape(outbounds=(("direct", b"x"), ("warp", b"x")))
    assert plan(wanted, running) == (Replace("default outbound"),)


def test_more_than_a_thousand_changes_rebuild_the_inbound() -> None:
    crowd = {f"{number}.7": Account("vless", {1: str(number)}) for number in range(REBUILD_ABOVE + 1)}
    few = dict(list(crowd.items())[:REBUILD_ABOVE])
    running = Shape(inbounds={7: b"x"}, users={7: {}})
    assert plan(Shape(inbounds={7: b"x"}, users={7: crowd}), running) == (RemoveInbound(7), AddInbound(7))
    assert len(plan(Shape(inbounds={7: b"x"}, users={7: few}), running)) == REBUILD_ABOVE


def test_a_refused_addition_is_not_taken_for_running() -> None:
    wanted = Shape(inbounds={7: b"x"}, rules=(b"r",))
    steps = (SetRules(), AddInbound(7))
    refused = {EntityKey(kind="inbound", id="7"), EntityKey(kind="rule", id="r1")}
    assert after(Shape(), wanted, steps, refused) == Shape()
