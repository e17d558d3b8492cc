"""The page of backups as a browser without JavaScript uses it."""

from harness.panel import PanelWorld
from harness.visitor import Visitor
from xfleet_contracts.enrollment import SignedManifest
from xfleet_controller.fleet.keyring import load_or_create_keys
from xfleet_controller.fleet.service import Fleet
from xfleet_nats.fleet import FleetIssuer, FleetKeys

PASSPHRASE = "a passphrase of tests"
PLAN = {"every_hours": "12", "keep_count": "3", "directory": "", "plan_passphrase": ""}


def with_fleet(panel: PanelWorld) -> None:
    """The keys without which there is nothing to come back to."""
    context = panel.context

    async def make() -> FleetKeys:
        keys, _ = await load_or_create_keys(context.database, context.vault, context.settings.root_file, context.clock)
        return keys

    issuer = FleetIssuer(panel.run(make()))
    context.fleet = Fleet(issuer, SignedManifest(payload=b"", signature=b""), (), context.vault, context.clock)


def test_a_backup_is_made_fetched_and_removed(admin: Visitor, panel: PanelWorld) -> None:
    with_fleet(panel)
    page = admin.get("/settings/backups")
    assert "No backups yet" in page.text
    short = admin.post("/settings/backups", {"passphrase": "short"})
    assert short.status_code == 422
    assert "10 to 1000 characters" in short.text
    assert "short" not in short.text.partition("<main")[2].partition('name="passphrase"')[2].partition(">")[0]
    made = admin.post("/settings/backups", {"passphrase": PASSPHRASE})
    assert made.headers["location"].endswith("/settings/backups?done=made")
    page = admin.get("/settings/backups?done=made").text
    assert "The backup is made" in page
    path = page.partition("/settings/backups/xfleet-")[2].partition("/file")[0]
    fetched = admin.get(f"/settings/backups/xfleet-{path}/file")
    assert fetched.content.startswith(b"xfleet-backup\n")
    assert "Remove backup?" in admin.get(f"/settings/backups/xfleet-{path}/delete").text
    assert admin.post(f"/settings/backups/xfleet-{path}/delete", {}).status_code == 303
    assert admin.get(f"/settings/backups/xfleet-{path}/delete").status_code == 404
    assert admin.post(f"/settings/backups/xfleet-{path}/delete", {}).status_code == 404


def test_a_schedule_is_refused_with_its_reason_and_saved(admin: Visitor) -> None:
    admin.get("/settings/backups")
    refused = admin.post("/settings/backups/schedule", PLAN)
    assert refused.status_code == 422
    assert "need a passphrase" in refused.text
    assert 'value="12"' in refused.text
    wrong = admin.post("/settings/backups/schedule", {**PLAN, "every_hours": "soon", "directory": "here"})
    assert "0 for never" in wrong.text
    saved = admin.post("/settings/backups/schedule", {**PLAN, "every_hours": "0", "plan_passphrase": PASSPHRASE})
    assert saved.status_code == 303
    assert PASSPHRASE not in admin.get("/settings/backups").text


def test_how_long_things_are_kept_is_refused_with_its_range_and_saved(admin: Visitor) -> None:
    admin.get("/settings/backups")
    kept = {
        "tasks_days": "90", "audit_days": "1", "events_days": "7", "traffic_hours_days": "0",
        "traffic_minutes_hours": "24",
    }  # fmt: skip
    assert "From 30 to 3650" in admin.post("/settings/backups/retention", kept).text
    assert admin.post("/settings/backups/retention", {**kept, "audit_days": "0"}).status_code == 303
    assert 'id="field-audit_days"' in admin.get("/settings/backups").text
