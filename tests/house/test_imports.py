"""What must start at once starts without torch, which takes seconds to import."""

from __future__ import annotations

import importlib.util
import pkgutil
import subprocess
import sys

import puna.base
import puna.core

ROOMS = [
    f"{room.__name__}.{info.name}" for room in (puna.core, puna.base) for info in pkgutil.iter_modules(room.__path__)
]
LIGHT = ["puna", "puna.cli", *ROOMS, "puna.tokenizer", "puna.data.corpus"]

ONE_BY_ONE = """
import sys
from importlib import import_module
for name in sys.argv[1:]:
    import_module(name)
    if "torch" in sys.modules:
        sys.exit(f"{name} imports torch")
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def exists(name: str) -> bool:
    parent = name.rpartition(".")[0]
    return (not parent or exists(parent)) and importlib.util.find_spec(name) is not None


def test_the_light_rooms_do_not_import_torch() -> None:
    assert len(ROOMS) > 10
    done = python(ONE_BY_ONE, *filter(exists, LIGHT))
    assert done.returncode == 0, done.stderr


def test_the_check_would_notice_torch() -> None:
    done = python(ONE_BY_ONE, "puna.core.chat", "puna.train.muon", "puna.base.errors")
    assert done.stderr.strip() == "puna.train.muon imports torch"


def test_help_is_given_where_torch_is_not_even_installed() -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom puna.cli import main\nmain(['--help'])"
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "Usage: puna" in done.stdout
    assert "raise" in done.stdout
