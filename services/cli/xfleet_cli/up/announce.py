"""What `xfleet up` tells the person who typed it."""

import getpass
import socket
import sys

import msgspec

from xfleet_cli.up.tls import default_address


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a start."""

    data_dir: str
    resumed: bool
    panel_url: str
    panel_port: int
    broker_port: int
    public: bool
    admin_created: bool
    admin_password: str | None
    password_given: bool
    fingerprint: str = ""
    own_certificate: bool = False
    bot: bool = False


def say(line: str) -> None:
    """One line to the terminal; a terminal that went away is no reason to end."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError:
        return


def lines_of(facts: Announcement) -> list[str]:
    """The announcement, line by line."""
    lines = ["", f"  Panel      {facts.panel_url}", *_sign_in(facts)]
    lines.append(f"  Data       {facts.data_dir} ({'resumed' if facts.resumed else 'new'})")
    if facts.public:
        if facts.fingerprint:
            whose = "of our own authority: your browser will ask" if facts.own_certificate else "as given"
            lines += [f"  SHA-256    {facts.fingerprint}", f"             (the panel's certificate, {whose})"]
        lines.append(
            f"  Ports      open {facts.panel_port}/tcp (panel) and {facts.broker_port}/tcp (broker), "
            "and the port of every inbound you add"
        )
    else:
        lines.append(f"  From afar  ssh -L {facts.panel_port}:127.0.0.1:{facts.panel_port} {_login()}")
    lines.append(f"  Bot        {'runs' if facts.bot else 'off (give --bot-token or XFLEET_BOT_TOKEN)'}")
    return [*lines, "", "  Ctrl-C stops everything in order.", ""]


def _sign_in(facts: Announcement) -> list[str]:
    if facts.admin_password is not None:
        return [
            "  Sign in    admin",
            f"  Password   {facts.admin_password}",
            "             (shown only now; change it in the panel)",
        ]
    if facts.admin_created:
        return ["  Sign in    admin, with the password of XFLEET_ADMIN_PASSWORD"]
    if facts.password_given:
        return ["  Sign in    admin; XFLEET_ADMIN_PASSWORD was ignored because this admin exists already"]
    return ["  Sign in    admin, with the password it already has"]


def _login() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "root"
    address = default_address()
    return f"{user}@{socket.gethostname() if address == '127.0.0.1' else address}"
