"""A folder of a few small documents and a recipe that raises a tiny model on them in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from puna.base.config import override
from puna.recipes.raising import RaiseConfig, scratch

TINY = (
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "model.num_hidden_layers=1",
    "model.num_attention_heads=2",
    "model.head_dim=16",
    "tokenizer.vocab_size=600",
    "pretrain.tokens=4096",
    "pretrain.context_length=64",
    "pretrain.final_context_length=128",
    "pretrain.batch_tokens=512",
    "pretrain.micro_batch_tokens=256",
    "sft.tokens=2048",
    "sft.context_length=256",
    "sft.batch_tokens=512",
    "sft.micro_batch_tokens=512",
    "encoder.layers=0",
    "encoder.tokens=4096",
    "encoder.batch_tokens=512",
    "encoder.choosing=0.3",
    "evaluate.tasks=6",
    "evaluate.max_answer_tokens=8",
    "evaluate.sample_tokens=8",
    "evaluate.max_bytes=2000",
    "questions.built.passage_chars=200",
    "split.held_out=0.3",
    "device=cpu",
)


def module(i: int) -> str:
    """A small Python module, unlike the others."""
    names = ("copper", "silver", "marble", "timber", "velvet", "amber", "pewter", "linen")
    name = names[i % len(names)]
    return (
        f'"""Tools for {name} of grade {i}."""\n\n\n'
        f"def weigh_{name}_{i}(amount, scale={i + 1}):\n"
        f'    """Return the weight of some {name} on scale {i}."""\n'
        f"    return amount * scale + {i * 7}\n\n\n"
        f"class {name.title()}Crate{i}(dict):\n"
        f'    """Hold pieces of {name} until they are {"sold" if i % 2 else "shipped"}."""\n\n'
        f"    def open_{name}(self, lid, key=None):\n"
        f'        """Lift the lid of crate {i} and count the {name}."""\n'
        f"        raise KeyError(lid)\n"
    )


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    for i in range(16):
        (folder / f"module_{i}.py").write_text(module(i))
    (folder / "guide.md").write_text(
        "# Crates\n\nA crate is a box with a lid.\n\n## How do I open one?\n\nLift the lid with both hands.\n"
    )
    return folder


def tiny_config(documents: Path, *settings: str) -> RaiseConfig:
    return override(scratch("cria-3m", str(documents)), (*TINY, *settings))


@pytest.fixture(scope="session")
def tiny(documents: Path) -> RaiseConfig:
    return tiny_config(documents)


@pytest.fixture(scope="session")
def finished_run(tiny: RaiseConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run; tests must not change it."""
    from puna.base.progress import Silent
    from puna.recipes.raising import raise_model

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    raise_model(tiny, folder, Silent())
    return folder
