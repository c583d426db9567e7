"""The house's one law: an import points down, whether it runs at the top, inside a function, or for types alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"

FLOORS: dict[str, int] = {
    room: floor
    for floor, rooms in enumerate(
        (
            ("core", "base"),
            ("tokenizer", "model", "knowledge", "kernels", "sandbox"),
            ("evals", "agent", "data", "parallel", "quant", "guard"),
            ("view", "train", "engine", "export", "reader"),
            ("align", "testing"),
            ("recipes", "stack"),
            ("apps",),
            ("commands",),
            ("cli",),
            ("__main__",),
        ),
        start=1,
    )
    for room in rooms
}
ROOF = 99  # puna/__init__.py: it may import anything, and nobody imports it
SIDEWAYS = {("core", "base"), ("model", "tokenizer")}  # (from, to) on one floor

Edges = Mapping[str, Sequence[tuple[str, int]]]  # module -> (imported module, line)


def modules(source: Path) -> dict[str, Path]:
    """Every module below `source` by its name."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST, package: str) -> Iterator[tuple[str, str, int]]:
    """(module, name in it or "", line) of every import in a file, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, "", node.lineno
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield base, alias.name, node.lineno
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value, "", node.lineno


def read_edges(source: Path) -> dict[str, list[tuple[str, int]]]:
    """Which module imports which, in the package `puna` below `source`."""
    known = modules(source)
    edges: dict[str, list[tuple[str, int]]] = {}
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        edges[name] = []
        for module, attribute, line in imports(ast.parse(path.read_text(encoding="utf-8")), package):
            target = f"{module}.{attribute}" if f"{module}.{attribute}" in known else module
            if target in known and target != name:
                edges[name].append((target, line))
    return edges


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def floor_of(module: str) -> int:
    return FLOORS[room_of(module)] if "." in module else ROOF


def shown(module: str) -> str:
    return f"{module} (floor {'roof' if floor_of(module) == ROOF else floor_of(module)})"


def wrong_ways(edges: Edges) -> list[str]:
    """Imports that point up, or into another room of the same floor."""
    faults = []
    for module, targets in edges.items():
        for target, line in targets:
            here, there = room_of(module), room_of(target)
            if floor_of(module) == ROOF or here == there or (here, there) in SIDEWAYS:
                continue
            if floor_of(target) >= floor_of(module):
                way = "up to" if floor_of(target) > floor_of(module) else "across to"
                faults.append(f"{shown(module)}, line {line}, imports {way} {shown(target)}")
    return faults


def circles(edges: Edges) -> list[str]:
    """Files that import each other, directly or by way of others: one circle for each file that closes one."""
    found, finished, path = [], set(), []

    def visit(module: str) -> None:
        if module in path:
            found.append(" -> ".join(shown(m) for m in [*path[path.index(module) :], module]))
        elif module not in finished:
            path.append(module)
            for target, _ in edges.get(module, ()):
                visit(target)
            finished.add(path.pop())

    for module in edges:
        visit(module)
    return found


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(module) for module in modules(SOURCE) if "." in module}
    assert rooms <= FLOORS.keys(), f"rooms without a floor: {sorted(rooms - FLOORS.keys())}"


def test_imports_point_down() -> None:
    faults = wrong_ways(read_edges(SOURCE))
    assert not faults, "\n" + "\n".join(faults)


def test_no_files_import_each_other_in_a_circle() -> None:
    faults = circles(read_edges(SOURCE))
    assert not faults, "\n" + "\n".join(faults)


# That the law would be noticed to be broken ---------------------------------------------------------------------------

BROKEN = {
    "up at the top": ("model/a.py", "import puna.train.b", "train/b.py", "", "up to"),
    "up in a function": ("model/a.py", "def f():\n    from puna.train import b", "train/b.py", "", "up to"),
    "up for types": ("core/a.py", "if TYPE_CHECKING:\n    from puna.data.b import X", "data/b.py", "X = 1", "up to"),
    "up by name": ("base/a.py", "import_module('puna.engine.b')", "engine/b.py", "", "up to"),
    "up by a relative path": ("model/a.py", "from ..train.b import X", "train/b.py", "X = 1", "up to"),
    "up to the roof": ("apps/a.py", "import puna", "base/b.py", "", "up to puna (floor roof)"),
    "across": ("data/a.py", "from puna.evals.b import X", "evals/b.py", "X = 1", "across to"),
    "across against an exception": ("base/a.py", "from puna.core import b", "core/b.py", "", "across to"),
}


def house(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in {"__init__.py": "", **files}.items():
        path = folder / "puna" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_import_is_noticed_with_both_files_and_floors(tmp_path: Path, name: str) -> None:
    first, code, second, content, way = BROKEN[name]
    (fault,) = wrong_ways(read_edges(house(tmp_path, {first: code, second: content})))
    assert f"puna.{first[:-3].replace('/', '.')} (floor " in fault
    assert way in fault
    assert f"line {len(code.splitlines())}" in fault


def test_a_circle_is_noticed_and_named(tmp_path: Path) -> None:
    files = {
        "model/a.py": "from puna.model import b",
        "model/b.py": "def f():\n    import puna.model.c",
        "model/c.py": "if TYPE_CHECKING:\n    from puna.model.a import X",
        "model/d.py": "import puna.model.a",
    }
    edges = read_edges(house(tmp_path, files))
    assert wrong_ways(edges) == []
    (circle,) = circles(edges)
    assert circle.count("floor 2") == 4
    assert all(f"puna.model.{name}" in circle for name in "abc")
    assert "puna.model.d" not in circle


def test_lawful_imports_pass(tmp_path: Path) -> None:
    files = {
        "__init__.py": "from puna.apps import a",
        "apps/__init__.py": "",
        "apps/a.py": "import os, torch\nfrom puna.model import b as c",
        "model/b.py": "from puna.tokenizer.t import X\nfrom . import e",
        "model/e.py": "import puna.base.f",
        "tokenizer/t.py": "X = 1",
        "base/f.py": "",
        "core/g.py": "from puna.base.f import Y",
    }
    edges = read_edges(house(tmp_path, files))
    assert wrong_ways(edges) == circles(edges) == []
    assert edges["puna.model.b"] == [("puna.tokenizer.t", 1), ("puna.model.e", 2)]
