"""What `xfleet up` can be told, and what it decides from it."""

from pathlib import Path

import pytest

from xfleet_cli.up.announce import Announcement, lines_of
from xfleet_cli.up.layout import Layout
from xfleet_cli.up.plan import make_plan
from xfleet_cli.up.settings import UpSettings, check, data_directory
from xfleet_runtime.errors import Unusable


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (UpSettings(panel_port=70000), "--panel-port 70000 is not a port"),
        (UpSettings(broker_port=-1), "--broker-port -1 is not a port"),
        (UpSettings(panel_port=4000, broker_port=4000), "two different ports"),
        (UpSettings(tls_cert=Path("a")), "belong together"),
        (UpSettings(behind_proxy="nonsense"), "not a network"),
        (UpSettings(base_path="/a b"), "cannot be a path"),
    ],
)
def test_combinations_that_cannot_work_are_refused(settings: UpSettings, says: str) -> None:
    with pytest.raises(Unusable, match=says):
        check(settings)


def test_state_lives_in_the_xdg_state_directory_or_where_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert data_directory(UpSettings(data_dir=tmp_path / "x")) == tmp_path / "x"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert data_directory(UpSettings()) == tmp_path / "xfleet"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert data_directory(UpSettings()) == Path("/var/lib/xfleet")


def test_ports_and_base_path_are_remembered(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    first = make_plan(UpSettings(panel_port=0, broker_port=0, public=True), layout)
    again = make_plan(UpSettings(public=True), layout)
    assert (first.resumed, again.resumed) == (False, True)
    assert (again.panel_port, again.broker_port) == (first.panel_port, first.broker_port)
    assert again.base_path == first.base_path
    assert len(first.base_path) > 10
    assert first.panel_url.startswith("https://")


def test_on_loopback_there_is_no_base_path_and_no_tls(tmp_path: Path) -> None:
    plan = make_plan(UpSettings(panel_port=0, broker_port=0), Layout(tmp_path))
    assert plan.panel_url == f"http://127.0.0.1:{plan.panel_port}/"


def test_behind_a_proxy_the_proxy_ends_tls(tmp_path: Path) -> None:
    settings = UpSettings(panel_port=0, broker_port=0, public=True, behind_proxy="10.0.0.0/8")
    assert make_plan(settings, Layout(tmp_path)).certificate is None


def announcement(**changes: object) -> str:
    facts = {
        "data_dir": "/data",
        "resumed": False,
        "panel_url": "http://127.0.0.1:2053/",
        "panel_port": 2053,
        "broker_port": 4222,
        "public": False,
        "admin_created": True,
        "admin_password": "made-up",
        "password_given": False,
    }
    return "\n".join(lines_of(Announcement(**{**facts, **changes})))  # type: ignore[arg-type]


def test_a_made_up_password_is_shown_once_and_a_given_one_never() -> None:
    assert "made-up" in announcement()
    assert "XFLEET_ADMIN_PASSWORD" in announcement(admin_password=None, password_given=True)
    ignored = announcement(admin_password=None, admin_created=False, password_given=True, resumed=True)
    assert "was ignored because this admin exists already" in ignored
    assert "(resumed)" in ignored


def test_on_loopback_the_ssh_line_is_shown_and_in_public_the_ports_and_fingerprint() -> None:
    assert "ssh -L 2053:127.0.0.1:2053 " in announcement()
    public = announcement(public=True, fingerprint="AB:CD", own_certificate=True)
    assert "ssh -L" not in public
    assert "AB:CD" in public
    assert "4222/tcp" in public
