"""Makes a wheel out of an installed distribution: the same bytes every time, for the same installed files.

An installation keeps no wheel, but it keeps the wheel's RECORD: what pip wrote beside it (scripts of entry points, its
own marks, byte code) is left out, what it moved (scripts, data) goes back. A source tree installed as editable has only
a pointer in its RECORD, so the packages themselves are taken.
"""

import base64
import csv
import hashlib
import io
import sys
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution
from importlib.util import find_spec
from pathlib import Path

EPOCH = (1980, 1, 1, 0, 0, 0)
LEFT_OUT = frozenset({"INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json", "uv_build.json"})
COMPRESSION_LEVEL = 6
_FILE, _PROGRAM = 0o100644, 0o100755
Contents = dict[str, tuple[Path, bool]]
"""Name in the wheel, to where it lies and whether it is a script."""


def repack(distribution: Distribution, packages: Sequence[str], directory: Path) -> Path:
    """Writes the distribution's wheel into the directory; `packages` are its own, for an editable installation."""
    contents = contents_of(distribution, packages)
    path = directory / f"{_stem(distribution)}-{_tag_of(distribution)}.whl"
    partial = path.with_suffix(".partial")
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=COMPRESSION_LEVEL) as archive:
        for name in sorted(contents):
            place, is_script = contents[name]
            data = _script_of(place.read_bytes()) if is_script else place.read_bytes()
            _add(archive, name, data, _PROGRAM if is_script else _FILE)
            rows.writerow([name, f"sha256={_digest(data)}", len(data)])
        own = f"{_stem(distribution)}.dist-info/RECORD"
        rows.writerow([own, "", ""])
        _add(archive, own, record.getvalue().encode(), _FILE)
    partial.replace(path)
    return path


def fingerprint(distribution: Distribution, packages: Sequence[str]) -> str:
    """Changes whenever the wheel would: names, sizes and times of what goes into it."""
    digest = hashlib.sha256()
    for name, (place, _) in sorted(contents_of(distribution, packages).items()):
        stat = place.stat()
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def contents_of(distribution: Distribution, packages: Sequence[str]) -> Contents:
    """What the wheel holds."""
    files = distribution.files
    if files is None:
        raise FileNotFoundError(f"{distribution.name} was installed without a RECORD")
    entry_points = {entry.name for entry in distribution.entry_points if entry.group.endswith("_scripts")}
    info = f"{_stem(distribution)}.dist-info"
    contents: Contents = {}
    editable = False
    for file in files:
        name, place = file.as_posix(), Path(str(file.locate()))
        if "__pycache__" in file.parts or name.endswith(".pyc"):
            continue
        if ".dist-info/" in name:
            if file.name not in LEFT_OUT:
                contents[f"{info}/{name.partition('.dist-info/')[2]}"] = (place, False)
        elif name.startswith(("_editable_impl_", "__editable__")):
            editable = True
        elif name.startswith(".."):
            contents |= _moved_back(file.parts, place.resolve(), entry_points, _stem(distribution))
        else:
            contents[name] = (place, False)
    if editable:
        contents |= {name: (place, False) for package in packages for name, place in _tree_of(package)}
    return contents


def _moved_back(parts: Sequence[str], place: Path, entry_points: set[str], stem: str) -> Contents:
    """A file outside the site's directory: a script, or data below the environment's root."""
    if parts[-2] == "bin":
        return {} if place.name in entry_points else {f"{stem}.data/scripts/{place.name}": (place, True)}
    below = place.relative_to(Path(sys.prefix).resolve())
    return {f"{stem}.data/data/{below.as_posix()}": (place, False)}


def _tree_of(package: str) -> Iterator[tuple[str, Path]]:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return
    root = Path(spec.submodule_search_locations[0])
    for path in root.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            yield f"{package}/{path.relative_to(root).as_posix()}", path


def _stem(distribution: Distribution) -> str:
    """As the installed metadata spells it: `<name>-<version>`."""
    found = next((file for file in distribution.files or () if file.name == "METADATA"), None)
    if found is None:
        raise FileNotFoundError(f"{distribution.name} was installed without METADATA")
    return found.parts[-2].removesuffix(".dist-info")


def _tag_of(distribution: Distribution) -> str:
    """The wheel's tags, compressed again into one."""
    lines = (distribution.read_text("WHEEL") or "").splitlines()
    tags = [line.partition(":")[2].strip().split("-") for line in lines if line.startswith("Tag:")]
    kinds = [sorted({tag[index] for tag in tags}) for index in range(3)]
    return "-".join(".".join(kind) for kind in kinds) if tags else "py3-none-any"


def _script_of(data: bytes) -> bytes:
    """A script whose first line an installer writes anew."""
    first, _, rest = data.partition(b"\n")
    return b"#!python\n" + rest if first.startswith(b"#!") and b"python" in first else data


def _add(archive: zipfile.ZipFile, name: str, data: bytes, mode: int) -> None:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.external_attr = mode << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, data)


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
