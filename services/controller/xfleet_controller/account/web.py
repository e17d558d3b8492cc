"""The own account with a browser: second factor, sessions, Telegram accounts; shown on the settings page."""

from typing import Any

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect

from xfleet_contracts.errors import Refusal
from xfleet_controller.account import service
from xfleet_controller.auth.web import signed_out
from xfleet_controller.bot.service import unbind
from xfleet_controller.panel.forms import Fields, read_fields, refused
from xfleet_controller.panel.qr import qr_svg
from xfleet_controller.panel.views import FormView
from xfleet_controller.panel.visit import UNPROCESSABLE, Visit
from xfleet_controller.settings.views import TotpView
from xfleet_controller.settings.web import settings_page

NAMES = {"password": "totp_password", "code": "totp_code"}
EMPTY = dict.fromkeys(NAMES.values(), "")
"""What was typed here is never shown again."""


@post("/settings/totp", include_in_schema=False, status_code=200)
async def begin_totp(visit: NamedDependency[Visit]) -> Response[bytes]:
    """Shows a fresh secret, once."""
    fields = await read_fields(visit.request)
    try:
        made = await service.begin_totp(visit.context, visit.actor, fields.secret("totp_password"))
    except Refusal as refusal:
        return await _again(visit, refusal)
    return await settings_page(visit, totp=TotpView(secret=made.secret, qr_svg=qr_svg(made.url), asks_code=True))


@post("/settings/totp/confirm", include_in_schema=False, status_code=200)
async def confirm_totp(visit: NamedDependency[Visit]) -> Response[bytes]:
    """Turns it on and shows the recovery codes, once."""
    fields = await read_fields(visit.request)
    try:
        codes = await service.confirm_totp(visit.context, visit.actor, fields.text("totp_code"))
    except Refusal as refusal:
        return await _again(visit, refusal, asks_code=True)
    return await settings_page(visit, totp=TotpView(recovery_codes=codes))


@post("/settings/totp/disable", include_in_schema=False)
async def disable_totp(visit: NamedDependency[Visit]) -> Response[Any]:
    """Turns it off."""
    fields = await read_fields(visit.request)
    try:
        await service.disable_totp(visit.context, visit.actor, *_proofs(fields))
    except Refusal as refusal:
        return await _again(visit, refusal)
    return Redirect(visit.url("/settings"), status_code=303)


@post("/settings/recovery-codes", include_in_schema=False, status_code=200)
async def renew_codes(visit: NamedDependency[Visit]) -> Response[bytes]:
    """Shows ten new recovery codes, once."""
    fields = await read_fields(visit.request)
    try:
        codes = await service.renew_recovery_codes(visit.context, visit.actor, *_proofs(fields))
    except Refusal as refusal:
        return await _again(visit, refusal)
    return await settings_page(visit, totp=TotpView(recovery_codes=codes))


@post("/settings/sessions/{session_id:str}/end", include_in_schema=False)
async def end_session(visit: NamedDependency[Visit], session_id: FromPath[str]) -> Response[Any]:
    """Signs another place out."""
    await service.revoke_session(visit.context, visit.actor, session_id)
    return Redirect(visit.url("/settings"), status_code=303)


@post("/settings/sessions/end", include_in_schema=False)
async def end_all_sessions(visit: NamedDependency[Visit]) -> Response[Any]:
    """Signs out everywhere, here too."""
    await service.sign_out_everywhere(visit.context, visit.actor)
    return signed_out(visit)


@post("/settings/bot/{telegram_id:int}/unbind", include_in_schema=False)
async def unbind_bot(visit: NamedDependency[Visit], telegram_id: FromPath[int]) -> Response[Any]:
    """Lets a Telegram account go."""
    await unbind(visit.context, visit.actor, telegram_id)
    return Redirect(visit.url("/settings"), status_code=303)


def _proofs(fields: Fields) -> tuple[str, str]:
    return fields.secret("totp_password"), fields.text("totp_code")


async def _again(visit: Visit, refusal: Refusal, *, asks_code: bool = False) -> Response[bytes]:
    form: FormView = refused(EMPTY, refusal, names=NAMES)
    return await settings_page(visit, totp=TotpView(form=form, asks_code=asks_code), status=UNPROCESSABLE)
