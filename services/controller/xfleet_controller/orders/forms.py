"""Forms of orders: posted fields as messages."""

import msgspec

from xfleet_contracts.care import CertificateGenerate, ChecksRun
from xfleet_contracts.installs import Download, GeoFile, GeoFilesUpdate, XrayInstall
from xfleet_controller.errors import FieldError, Invalid, invalid
from xfleet_controller.panel.forms import Fields, whole_number

GEO_NAMES = ("geoip.dat", "geosite.dat")
GEO_BLANK = {f"{field}_{index}": "" for index in range(len(GEO_NAMES)) for field in ("url", "sha256")}
INSTALL_NAMES = {"version": "version", "archive.url": "url", "archive.sha256": "sha256"}
"""The form's field for a path of a refusal."""
DAYS = 365
BAD_PORT = 0


def install_of(fields: Fields) -> XrayInstall:
    """Which Xray to install; without an address, one that is there."""
    url, sha256 = fields.text("url"), fields.text("sha256").lower()
    archive = Download(url=url, sha256=sha256) if url or sha256 else None
    return XrayInstall(version=fields.text("version").removeprefix("v"), archive=archive)


def geo_files_of(fields: Fields) -> GeoFilesUpdate:
    """Which geo files to fetch: those with an address. Raises `Invalid` with the form's own fields."""
    files = [
        GeoFile(
            name=name, file=Download(url=fields.text(f"url_{index}"), sha256=fields.text(f"sha256_{index}").lower())
        )
        for index, name in enumerate(GEO_NAMES)
    ]
    given = [(index, file) for index, file in enumerate(files) if file.file.url or file.file.sha256]
    if not given:
        raise invalid("url_0", "Give the address of at least one file.")
    missing = [
        FieldError(f"{name}_{index}", "This goes with the other field.")
        for index, file in given
        for name, value in (("url", file.file.url), ("sha256", file.file.sha256))
        if not value
    ]
    if missing:
        raise Invalid(missing)
    return GeoFilesUpdate(files=tuple(file for _, file in given))


def renamed(refusal: Invalid, order: GeoFilesUpdate) -> Invalid:
    """A refusal about the files that were given, with the fields of the form, where each file has its place."""
    errors: list[FieldError] = []
    for error in refusal.errors:
        parts = error.field.split(".")
        index = int(parts[1]) if len(parts) > 1 else 0
        place = GEO_NAMES.index(order.files[index].name)
        errors.append(FieldError(f"{'sha256' if parts[-1] == 'sha256' else 'url'}_{place}", error.reason, error.code))
    return Invalid(errors)


def certificate_of(fields: Fields) -> CertificateGenerate:
    """Which certificate to make."""
    days = fields.text("days_count")
    return CertificateGenerate(
        domains=tuple(fields.words("domains")), days_count=DAYS if not days else whole_number(days) or 0
    )


def checks_of(fields: Fields) -> ChecksRun:
    """What to try."""
    ports = tuple(whole_number(word) or BAD_PORT for word in fields.words("free_ports"))
    targets = tuple(word if ":" in word else f"{word}:443" for word in fields.words("tls_targets"))
    return ChecksRun(tls_targets=targets, free_ports=ports)


def as_json(value: object) -> str:
    """JSON as people read it."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
