"""The layers of docs/architecture.md hold: imports go down in its table, and no module is its own ancestor."""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "scitq_pkg"
MODULES = {
    path: path.relative_to(PACKAGE).with_suffix("").parts
    for path in sorted(PACKAGE.rglob("*.py"))
    if "__pycache__" not in path.parts
}
ROWS = re.findall(r"^\| \d \| (`[^|]+) \|", (ROOT / "docs" / "architecture.md").read_text(), re.M)
DEPTH = {
    room.rstrip("/").removesuffix(".py"): depth for depth, names in enumerate(ROWS) for room in re.findall(r"`([\w/.]+)`", names)
}
DOORS = ("__init__", "__main__")  # of the package itself


def nodes(top: ast.AST, with_functions: bool):
    for node in ast.iter_child_nodes(top):
        if with_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
            yield from nodes(node, with_functions)


def imported(path: Path, when_called: bool) -> set[tuple[str, ...]]:
    """The modules of the package that a module imports when it is loaded; with `when_called` those of its functions too."""
    here, found = MODULES[path], set()
    for node in nodes(ast.parse(path.read_text()), when_called):
        if isinstance(node, ast.Import):
            assert not any(name.name.split(".")[0] in ("scitq", "scitq_pkg") for name in node.names), (
                f"{path}: imports are relative"
            )
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level] + tuple((node.module or "").split(".")) * bool(node.module)
            found |= {base + (name.name,) if base + (name.name,) in known() else base for name in node.names}
    return {target for target in found if target not in ((), here)}


def known() -> set[tuple[str, ...]]:
    return {parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts for parts in MODULES.values()}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: "/".join(MODULES[path]))
def test_imports_go_down(path):
    room = MODULES[path][0]
    assert room in DEPTH or room in DOORS, f"{room} is not in the table of docs/architecture.md"
    if room not in DOORS:
        for target in imported(path, when_called=True):
            assert target[0] == room or target[0] in DOORS or DEPTH[target[0]] > DEPTH[room], (
                f"{path} imports {'.'.join(target)} from above"
            )
    assert "__main__" not in path.read_text() or path.name in ("__main__.py", "program.py"), f"{path} is no program"


def test_no_module_is_its_own_ancestor():
    graph = {
        parts[:-1] if parts[-1] == "__init__" else parts: imported(path, when_called=False)
        for path, parts in MODULES.items()
        if parts[0] not in DOORS
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_modules_are_of_a_size_to_read():
    assert {path.name: n for path in MODULES if (n := len(path.read_text().splitlines())) > 600} == {}
