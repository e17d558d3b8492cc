"""Made-up admins, API tokens and audit rows."""

from datetime import datetime, timedelta

from xfleet_controller.admins.views import AdminFormView, AdminRowView, AdminsPageView, InvitedView, InviteView
from xfleet_controller.audit.difference import Change
from xfleet_controller.audit.views import AuditPageView, AuditRowView
from xfleet_controller.auth.views import LoginView
from xfleet_controller.gallery.server_samples import LONG
from xfleet_controller.panel.qr import qr_svg
from xfleet_controller.panel.views import FormView, OptionView, PagingView
from xfleet_controller.settings.views import TotpView
from xfleet_controller.tokens.views import TokenFormView, TokenMadeView, TokenRowView, TokensPageView

SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"  # noqa: S105  a sample
DISABLED, INVITED = 4, 5
ROLES = ("owner", "operator", "support", "read-only")


def admin_row(number: int, now: datetime) -> AdminRowView:
    """One admin in one of the states."""
    return AdminRowView(
        id=number,
        name=("admin", "anna", "night-shift@example.com", "a" * 64, "carl")[number - 1],
        role=ROLES[(number - 1) % len(ROLES)],
        enabled=number != DISABLED,
        totp=number in {1, 2},
        invited=number == INVITED,
        sessions_count=number % 3,
        tokens_count=2 if number == 1 else 0,
        created_at=now - timedelta(days=40),
        last_login_at=now - timedelta(minutes=7 * number) if number not in {4, 5} else None,
        own=number == 1,
    )


def admins_page(now: datetime) -> AdminsPageView:
    """Admins of every role and state."""
    return AdminsPageView(rows=tuple(admin_row(number, now) for number in range(1, 6)))


def admin_form(now: datetime, *, number: int = 0, wrong: bool = False) -> AdminFormView:
    """The form of a new admin, or of one there is."""
    roles = tuple(OptionView(value=name, label=name, hint="What it may do, in a few words.") for name in ROLES)
    ways = (
        OptionView(value="link", label="One-time link", hint="Lasts 24 hours."),
        OptionView(value="password", label="Password", hint="You choose it and tell it."),
    )
    errors = {"name": "Another admin has this name.", "": "This is the last owner."} if wrong else {}
    values = {"name": "anna", "role": "operator", "way": "link", "enabled": "on"}
    form = FormView(values=values, errors=errors, options={"role": roles, "way": ways})
    return AdminFormView(form=form, row=admin_row(number, now) if number else None)


def invite(now: datetime) -> InviteView:
    """A link, shown once."""
    url = f"https://panel.example.com/x7k2/invite/{'q8Zt3mVw0aPfK1Lc' * 2}"
    return InviteView(name="anna", url=url, expires_at=now + timedelta(hours=24))


def invited() -> InvitedView:
    """The page behind it."""
    form = FormView(values={}, errors={"repeat_password": "The two passwords differ."})
    return InvitedView(name="anna", token="sample", form=form, password_length=8)  # noqa: S106  a sample


def tokens_page(now: datetime, *, rows: int = 3) -> TokensPageView:
    """Working, unused and expired tokens."""
    found = (
        TokenRowView(
            id=1, name="nightly backup", scopes=("clients.read", "traffic.read"), created_at=now - timedelta(days=3),
            last_used_at=now - timedelta(minutes=4), expires_at=now + timedelta(days=87),
        ),
        TokenRowView(
            id=2, name=LONG, scopes=("servers.*", "inbounds.read", "clients.*", "tasks.read", "logs.read"),
            created_at=now - timedelta(hours=1), expires_at=now + timedelta(days=1),
        ),
        TokenRowView(
            id=3, name="old", scopes=("*",), created_at=now - timedelta(days=90), expires_at=now - timedelta(days=1),
            expired=True,
        ),
    )  # fmt: skip
    return TokensPageView(rows=found[:rows])


def token_form() -> TokenFormView:
    """The form of a new token, refused."""
    scopes = tuple(
        OptionView(value=value, label=label, hint=value, chosen=value == "clients.read")
        for value, label in (("*", "Everything my role allows"), ("clients.read", "See clients and what they used"))
    )
    errors = {"days": "A token lasts 1 to 730 days."}
    return TokenFormView(form=FormView(values={"name": "x", "days": "0"}, errors=errors, options={"scopes": scopes}))


def token_made(now: datetime) -> TokenMadeView:
    """A token, shown once."""
    return TokenMadeView(name="nightly", token=f"xf_{'q8Zt3mVw' * 5}", expires_at=now + timedelta(days=90))


def audit_page(now: datetime, *, rows: int = 4) -> AuditPageView:
    """A few rows, with and without a difference."""
    changes = (
        Change(path="role", before="operator", after="support"),
        Change(path="stream_settings.realitySettings.serverNames", before=f"{LONG}, {LONG}", after="example.org"),
        Change(path="tags", before=None, after="eu, fast"),
    )
    words = ("Edit admin", "Sign in", "Delete client", "Create token")
    found = tuple(
        AuditRowView(
            id=number, at=now - timedelta(minutes=13 * number),
            actor=("admin:anna", "system", f"token:{LONG}")[number % 3],
            address=("192.0.2.7", "", "2001:db8:1:2::7")[number % 3], words=words[number], kind="admin", object_id="7",
            object_name=("anna", "", LONG, "nightly")[number], changes=changes if number in {0, 2} else (),
        )
        for number in range(rows)
    )  # fmt: skip
    return AuditPageView(
        rows=found,
        paging=PagingView(page=2, page_size=50, total=431 if rows else 0),
        actions=(OptionView(value="edit_admin", label="Edit admin"),),
        query={"by": "" if rows else "zzz", "action": "", "subject": "", "since": "2026-11-01", "until": ""},
    )


def login_code() -> LoginView:
    """The second step of a sign-in, after a wrong code."""
    return LoginView(form=FormView(values={}, errors={"": "This code is not valid."}), challenge="sample")


def totp_setup() -> TotpView:
    """The secret, shown once."""
    return TotpView(secret=SECRET, qr_svg=qr_svg(f"otpauth://totp/xfleet:admin?secret={SECRET}"), asks_code=True)


def totp_codes() -> TotpView:
    """Recovery codes, shown once."""
    return TotpView(on=True, recovery_codes_left=10, recovery_codes=("ABCD-EFGH-JKLM-NPQR",) * 10)
