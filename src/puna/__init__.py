"""Puna: from a folder of documents to a private assistant, the open Llama 3.1 system in one package.

    import puna

    model = puna.load("runs/stdlib")
    print(model.chat("What does shutil.copyfile do?").message.content)

Names are imported when they are first used, so that `import puna` costs nothing.
"""

from __future__ import annotations

import gc
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from puna.core.chat import Conversation, Message, ToolCall, ToolSpec
    from puna.core.completion import Completion, SamplingParams
    from puna.core.document import Document
    from puna.engine.local import LocalModel
    from puna.model.checkpoint import Checkpoint
    from puna.model.config import ModelConfig
    from puna.tokenizer import Tokenizer

_HOMES = {
    "Checkpoint": "puna.model.checkpoint",
    "Completion": "puna.core.completion",
    "Conversation": "puna.core.chat",
    "Document": "puna.core.document",
    "LocalModel": "puna.engine.local",
    "Message": "puna.core.chat",
    "ModelConfig": "puna.model.config",
    "SamplingParams": "puna.core.completion",
    "Tokenizer": "puna.tokenizer",
    "ToolCall": "puna.core.chat",
    "ToolSpec": "puna.core.chat",
}

__all__ = [
    "Checkpoint",
    "Completion",
    "Conversation",
    "Document",
    "LocalModel",
    "Message",
    "ModelConfig",
    "SamplingParams",
    "Tokenizer",
    "ToolCall",
    "ToolSpec",
    "load",
]


def load(path: str | Path, dtype: str = "float32", device: str = "auto", *, allow_pickle: bool = False) -> LocalModel:
    """Loads a model to talk to.

    Args:
        path: a run folder of `puna raise`, or a checkpoint folder in Hugging Face's or Meta's layout.
        dtype: float32, bfloat16, float16 or float64.
        device: "auto", "cpu", "cuda", ...
        allow_pickle: whether Meta's `.pth` files may be read (weights only, in a child process).
    """
    collecting = gc.isenabled()
    gc.disable()  # torch alone makes so many objects that looking through them costs a tenth of a second each time
    try:
        from puna.recipes.run_folder import load_model

        return load_model(path, dtype, device, allow_pickle=allow_pickle)
    finally:
        if collecting:
            gc.enable()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'puna' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
