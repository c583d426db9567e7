"""An encoder: a network that turns texts into vectors, questions near the passages that answer them.

It is a checkpoint like any other whose last hidden states were trained to be averaged (`train/contrastive.py`); its
context is as long as the texts that it was trained on, and longer ones are read as far as that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from puna.base.device import resolve_device
from puna.base.errors import CheckpointError
from puna.engine.scoring import Scorer
from puna.model.checkpoint import Checkpoint
from puna.model.transformer import Transformer
from puna.tokenizer import Tokenizer

# More characters than this hold more tokens than are read, in any language; to tokenise them would be wasted.
_CHARS_PER_TOKEN = 16


class Encoder:
    """An `Embedder` (core/protocols).

    Args:
        model: in eval mode, on its device.
        tokenizer: of the model.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._scorer = Scorer(model)
        self._most = model.config.max_position_embeddings

    @classmethod
    def load(cls, folder: Path | str, dtype: str = "float32", device: str = "auto") -> Encoder:
        """The encoder of a folder.

        Raises:
            CheckpointError: there is none, or it has no tokenizer.
        """
        checkpoint = Checkpoint.load(folder)
        if checkpoint.tokenizer is None:
            raise CheckpointError(f"{folder} has no tokenizer.", hint="Put its tokenizer.json into the folder.")
        model = checkpoint.model(dtype, resolve_device(device)).requires_grad_(False)
        return cls(model.eval(), checkpoint.tokenizer)

    @property
    def dimensions(self) -> int:
        return self._scorer.model.config.hidden_size

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector of length 1 for each text."""
        return self.vectors(texts).tolist()

    def vectors(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """`embed` as an array, (texts, dimensions)."""
        return self._scorer.vectors([self.encode(text) for text in texts]).numpy()

    def encode(self, text: str) -> list[int]:
        """The ids that are read of a text."""
        return self.tokenizer.encode(text[: self._most * _CHARS_PER_TOKEN], bos=True)[: self._most]
