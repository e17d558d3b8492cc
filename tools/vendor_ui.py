"""Fetches the panel's third-party assets and locks their hashes: run by hand when a version changes, never at install.

Needs npm. Writes `ui/xfleet_ui/static/vendor/<name>@<version>/`, the sprite of the icons the panel uses, and
`ui/xfleet_ui/vendor.lock.toml`. `--icons-only` rebuilds the sprite after a template began to use another icon.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UI = ROOT / "ui" / "xfleet_ui"
STATIC = UI / "static"
VENDOR = STATIC / "vendor"
LOCK = UI / "vendor.lock.toml"
SPRITE = STATIC / "icons" / "sprite.svg"
QUOTED_WORD = re.compile(r"""(?:[(\s]|_icon=)["']([a-z0-9-]+)["']""")
ICON_SHAPES = re.compile(r"<svg[^>]*>(.*)</svg>", re.DOTALL)
NO_SHAPE = re.compile(r'\s*<path stroke="none" d="M0 0h24v24H0z" fill="none" ?/>')


@dataclass(frozen=True)
class Package:
    """One npm package: which of its files the panel serves."""

    npm: str
    version: str
    folder: str
    licence: str
    files: tuple[str, ...]
    licence_file: str | None = "LICENSE"


PACKAGES = (
    Package(
        "@tabler/core",
        "1.6.1",
        "tabler",
        "MIT",
        ("dist/css/tabler.min.css", "dist/css/tabler.rtl.min.css", "dist/js/tabler.min.js"),
        licence_file=None,
    ),
    Package("htmx.org", "4.0.1", "htmx", "0BSD", ("dist/htmx.esm.min.js", "dist/ext/hx-sse.min.js")),
    Package("uplot", "1.6.32", "uplot", "MIT", ("dist/uPlot.iife.min.js", "dist/uPlot.min.css")),
    Package(
        "@fontsource-variable/inter",
        "5.3.0",
        "inter",
        "OFL-1.1",
        (
            "files/inter-latin-wght-normal.woff2",
            "files/inter-latin-ext-wght-normal.woff2",
            "files/inter-cyrillic-wght-normal.woff2",
        ),
    ),
    Package(
        "@fontsource-variable/vazirmatn",
        "5.3.0",
        "vazirmatn",
        "OFL-1.1",
        ("files/vazirmatn-arabic-wght-normal.woff2",),
    ),
)
ICONS = Package("@tabler/icons", "3.51.0", "tabler-icons", "MIT", ())


def fetch(package: Package, into: Path) -> tuple[Path, str]:
    """The unpacked package and its npm integrity, which must be the locked one while the version stays."""
    packed = subprocess.run(  # noqa: S603  # a fixed program with our own arguments
        ["npm", "pack", "--silent", "--json", f"{package.npm}@{package.version}"],  # noqa: S607
        cwd=into,
        check=True,
        capture_output=True,
    )
    description = json.loads(packed.stdout)[0]
    integrity = str(description["integrity"])
    locked = read_lock().get(f"{package.folder}@{package.version}")
    if locked is not None and locked["npm_integrity"] != integrity:
        sys.exit(f"{package.npm}@{package.version}: the registry serves {integrity}, locked is other content")
    target = into / package.folder
    with tarfile.open(into / description["filename"]) as archive:
        archive.extractall(target, filter="data")
    return target / "package", integrity


def read_lock() -> dict[str, dict[str, str]]:
    """The packages of the lock by `name@version`; empty before the first run."""
    if not LOCK.exists():
        return {}
    return {entry["folder"]: entry for entry in tomllib.loads(LOCK.read_text())["package"]}


def copy_files(package: Package, unpacked: Path) -> list[Path]:
    """The files of one package in their vendor folder, source-map comments dropped."""
    folder = VENDOR / f"{package.folder}@{package.version}"
    folder.mkdir(parents=True)
    copied: list[Path] = []
    for name in package.files:
        target = folder / Path(name).name
        content = (unpacked / name).read_bytes()
        if target.suffix in {".css", ".js"}:
            content = re.sub(rb"\n?/[/*]# sourceMappingURL=[^\n]*\n?$", b"\n", content)
        target.write_bytes(content)
        copied.append(target)
    licence = folder / "LICENSE"
    if package.licence_file is None:
        licence.write_text(_mit("2018-2026 The Tabler Authors"))
    else:
        shutil.copyfile(unpacked / package.licence_file, licence)
    return [*copied, licence]


def _mit(holder: str) -> str:
    """The MIT text for a package that names the licence but ships no file."""
    text = (ROOT / "LICENSE").read_text()
    return re.sub(r"Copyright \(c\) .*", f"Copyright (c) {holder}", text, count=1)


def used_icons(outlines: Path) -> list[str]:
    """Every quoted word of a template that names an icon: a few too many, never one too few."""
    words = {word for place in UI.rglob("templates/**/*.html") for word in QUOTED_WORD.findall(place.read_text())}
    return sorted(word for word in words if (outlines / f"{word}.svg").exists())


def build_sprite(unpacked: Path) -> None:
    """One SVG file with a symbol per used icon, in Tabler's outline style."""
    symbols: list[str] = []
    outlines = unpacked / "icons" / "outline"
    for name in used_icons(outlines):
        source = outlines / f"{name}.svg"
        found = ICON_SHAPES.search(source.read_text())
        if found is None:
            sys.exit(f"{source.name} does not look like an SVG icon")
        shapes = re.sub(r"\s*\n\s*", "", NO_SHAPE.sub("", found.group(1)))
        symbols.append(f'<symbol id="{name}" viewBox="0 0 24 24">{shapes}</symbol>')
    SPRITE.parent.mkdir(parents=True, exist_ok=True)
    body = "\n".join(symbols)
    SPRITE.write_text(f'<svg xmlns="http://www.w3.org/2000/svg">\n{body}\n</svg>\n')
    shutil.copyfile(unpacked / "LICENSE", SPRITE.parent / "LICENSE")


def lock_entry(package: Package, integrity: str, files: list[Path]) -> str:
    """One `[[package]]` table of the lock."""
    lines = [
        "[[package]]",
        f'folder = "{package.folder}@{package.version}"',
        f'npm = "{package.npm}"',
        f'version = "{package.version}"',
        f'licence = "{package.licence}"',
        f'npm_integrity = "{integrity}"',
        "[package.sha256]",
    ]
    for file in files:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        lines.append(f'"{file.relative_to(STATIC).as_posix()}" = "{digest}"')
    return "\n".join(lines)


def main() -> None:
    """Fetch, copy, build, lock."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--icons-only", action="store_true", help="rebuild only the icon sprite and its hashes")
    options = parser.parse_args()
    entries: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        if not options.icons_only:
            shutil.rmtree(VENDOR, ignore_errors=True)
        for package in PACKAGES:
            folder = VENDOR / f"{package.folder}@{package.version}"
            if options.icons_only:
                integrity = read_lock()[folder.name]["npm_integrity"]
                entries.append(lock_entry(package, integrity, sorted(folder.iterdir())))
                continue
            unpacked, integrity = fetch(package, work)
            entries.append(lock_entry(package, integrity, sorted(copy_files(package, unpacked))))
        unpacked, integrity = fetch(ICONS, work)
        build_sprite(unpacked)
        entries.append(lock_entry(ICONS, integrity, [SPRITE.parent / "LICENSE", SPRITE]))
    head = "# Written by tools/vendor_ui.py; a test recomputes every hash.\n\n"
    LOCK.write_text(head + "\n\n".join(entries) + "\n")


if __name__ == "__main__":
    main()
