"""Writes docs/protocol.md and docs/settings.md from the code; `--check` only says whether they are current.

python tools/build_docs.py [--check]
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = ROOT / "libs/contracts/xfleet_contracts"
CONVERSATIONS = ("enrollment", "heartbeat", "apply", "desired_state", "commands", "traffic", "receipt", "allowance",
                 "events", "control", "errors")  # fmt: skip
SETTINGS = {
    "xfleet up": ("services/cli/xfleet_cli/up/settings.py", "UpSettings"),
    "xfleet-controller": ("services/controller/xfleet_controller/config.py", "ControllerSettings"),
    "xfleet-agent": ("services/agent/xfleet_agent/settings.py", "AgentSettings"),
    "xfleet-bot": ("services/bot/xfleet_bot/settings.py", "BotSettings"),
}
PREFIX = "XFLEET_"


class Field(msgspec.Struct, frozen=True):
    """A field as the source spells it."""

    name: str
    kind: str
    default: str
    about: str


def main(arguments: list[str]) -> int:
    """Writes the pages; with `--check` writes nothing and answers 1 when a page is out of date."""
    stale = [path for path, text in pages() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(ROOT)} is out of date: run `make docs`.\n")
        return 1 if stale else 0
    for path, text in pages():
        path.write_text(text, encoding="utf-8")
    return 0


def pages() -> Iterator[tuple[Path, str]]:
    """Every generated page with its text."""
    yield ROOT / "docs/protocol.md", protocol_page()
    yield ROOT / "docs/settings.md", settings_page()


def protocol_page() -> str:
    """One section per module of the contracts: its docstring, then its messages field by field."""
    lines = [
        "# What crosses the bus",
        "",
        "Generated from `libs/contracts` by `make docs`. JSON, at most 240 KiB a message, tolerant of added fields,",
        "strict on types. The sender of a message is read from its subject, which the broker enforces.",
        "",
        "## Subjects",
        "",
        *_subjects(),
        "",
        "## Streams",
        "",
        *_streams(),
    ]
    for name in CONVERSATIONS:
        lines += ["", *_conversation(name)]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """Every setting of every command."""
    lines = [
        "# Settings",
        "",
        "Generated from each service's settings by `make docs`. A value given on the command line wins over the",
        "environment, and that over a TOML file. An unknown name refuses to start.",
    ]
    for command, (file, name) in SETTINGS.items():
        lines += ["", f"## {command}", "", "| variable | default | meaning |", "|---|---|---|"]
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        for field in _fields(_class(tree, name)):
            default = f"`{field.default}`" if field.default else "required"
            lines.append(f"| `{PREFIX}{field.name.upper()}` | {default} | {_cell(field.about)} |")
    return "\n".join(lines) + "\n"


def _conversation(name: str) -> list[str]:
    tree = ast.parse((CONTRACTS / f"{name}.py").read_text(encoding="utf-8"))
    about, _, sheet = (ast.get_docstring(tree) or "").partition("\n\n")
    title, _, rest = about.partition(": ")
    lines = [f"## {title if rest else name.replace('_', ' ').capitalize()}", "", _sentence(rest or about)]
    if sheet:
        lines += ["", "```text", sheet, "```"]
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any("Message" in ast.unparse(base) for base in node.bases):
            lines += ["", *_message(node)]
    return lines


def _message(node: ast.ClassDef) -> list[str]:
    lines = [f"### {node.name}", "", ast.get_docstring(node) or ""]
    fields = list(_fields(node))
    if fields:
        lines += ["", "| field | type | default | meaning |", "|---|---|---|---|"]
    for field in fields:
        default = f"`{field.default}`" if field.default else ""
        lines.append(f"| `{field.name}` | `{_cell(field.kind)}` | {default} | {_cell(field.about)} |")
    return lines


def _fields(node: ast.ClassDef) -> Iterator[Field]:
    for at, statement in enumerate(node.body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            after = node.body[at + 1] if at + 1 < len(node.body) else None
            default = ast.unparse(statement.value) if statement.value is not None else ""
            yield Field(statement.target.id, ast.unparse(statement.annotation), default, _string(after))


def _subjects() -> Iterator[str]:
    tree = ast.parse((CONTRACTS / "subjects.py").read_text(encoding="utf-8"))
    for node in tree.body:
        about = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
        if about and about.startswith(("fleet.", "_INBOX.")):
            subject, _, meaning = about.partition(": ")
            yield f"- `{subject}` {meaning}".rstrip()


def _streams() -> Iterator[str]:
    tree = ast.parse((CONTRACTS / "streams.py").read_text(encoding="utf-8"))
    for at, node in enumerate(tree.body):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            about = _string(tree.body[at + 1]) if at + 1 < len(tree.body) else ""
            kind = ast.unparse(node.value.func)
            if kind == "StreamSpec":
                yield f"- **{ast.unparse(node.targets[0])}**: {about}"


def _class(tree: ast.Module, name: str) -> ast.ClassDef:
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def _string(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return ""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
