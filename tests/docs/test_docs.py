"""The documentation is run: its Python on a small raised model, its commands against the command line."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import click
import pytest

from puna.base.config import override
from puna.base.progress import Silent
from puna.cli import COMMANDS, cli
from puna.recipes.raising import raise_model, scratch

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TINY = (
    "model.hidden_size=32", "model.intermediate_size=64", "model.num_hidden_layers=1", "model.num_attention_heads=2",
    "model.head_dim=16", "tokenizer.vocab_size=560", "pretrain.tokens=1024", "pretrain.context_length=64",
    "pretrain.final_context_length=0", "pretrain.batch_tokens=512", "sft.tokens=512", "sft.context_length=256",
    "sft.batch_tokens=512", "split.held_out=0.3", "questions.built.passage_chars=150",
)  # fmt: skip


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/quickstart`, as the documentation assumes, raised in seconds."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "notes").mkdir()
    for word in ("north", "south", "east", "west"):
        text = f'"""Ways to the {word}."""\n\n\ndef go_{word}(steps):\n    """Walk {word} until a wall is met."""\n'
        (folder / "notes" / f"{word}.py").write_text(text)
    config = override(scratch("cria-3m", str(folder / "notes")), TINY)
    raise_model(config, folder / "runs" / "quickstart", Silent(), until="index")
    raise_model(config, folder / "runs" / "quickstart", Silent(), until="sft")
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_runs(page: Path, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page are one program, from its top to its end."""
    shutil.copytree(workplace, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    exec(compile("\n".join(blocks(page, "python")), str(page), "exec"), {"__name__": "documentation"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for line in re.findall(r"(?:^|`)puna ([a-z][^`\n]*)", text, re.MULTILINE):
        words = line.split("#")[0].split()
        assert words[0] in COMMANDS, f"{page.name}: puna {line}"
        command = cli.get_command(click.Context(cli), words[0])
        if isinstance(command, click.Group) and len(words) > 1 and not words[1].startswith("-"):
            command = command.commands[words[1]]
        assert command is not None
        known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
        used = {word.split("=")[0] for word in words if word.startswith("-")}
        assert used <= known | {"--help"}, f"{page.name}: puna {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_reference_is_that_of_the_commands() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.reference(), "run: python docs/generate.py"


def test_every_stage_of_a_run_is_in_the_guide() -> None:
    from puna.recipes.raising import stages

    guide = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    for stage in stages(scratch("cria-3m", "docs")):
        assert f"{stage.name}/" in guide or stage.name == "report", stage.name
