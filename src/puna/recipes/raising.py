"""`puna raise`: from a folder of documents to a model that answers, as one config and a chain of stages.

    read -> split -> tokenizer -> tokens -> pretrain -> sft -> quantize -> evaluate -> report
       |        \\-> questions --------------------------^--------^----------^
       \\-> index -> reader, and encoder after pretrain (for look-ups; both are evaluated too)

`scratch` and `from_base` are the two named recipes; each returns a complete `RaiseConfig`, in which everything can be
overridden. The numbers that fit a size stand in `assets/scratch.toml`, chosen by measured runs
(`benchmarks/results`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from puna.base.config import from_dict, require, to_toml
from puna.base.errors import ConfigError, near
from puna.base.files import folder_lock, hash_folder, write_text
from puna.base.progress import Progress
from puna.data import corpus
from puna.data.readers.reader import ReadConfig
from puna.model.config import ModelConfig, named_size
from puna.quant.job import QuantConfig
from puna.recipes.run_folder import REPORT, checkpoint_folder
from puna.recipes.runner import Runner, Stage, StageRecord
from puna.recipes.stages import (
    encoder,
    evaluate,
    finetune,
    index,
    pretrain,
    quantize,
    questions,
    read,
    reader,
    split,
    tokenize,
)
from puna.recipes.stages.encoder import EncoderConfig
from puna.recipes.stages.evaluate import EvaluateConfig
from puna.recipes.stages.finetune import FinetuneConfig
from puna.recipes.stages.pretrain import PretrainConfig
from puna.recipes.stages.questions import QuestionsConfig
from puna.recipes.stages.reader import ReaderConfig
from puna.recipes.stages.report import ReportConfig, report
from puna.recipes.stages.split import SplitConfig
from puna.recipes.stages.tokenize import TokenizerConfig

RUN_CONFIG = "run.toml"
SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class RaiseConfig:
    """Everything that decides a run.

    Attributes:
        documents: the folder or file to learn from; "" is the standard library of the running Python.
        base: "scratch", or the folder of a checkpoint to start from.
        size: the recipe of a model from scratch; it has filled in the rest.
        device: "auto", "cpu", "cuda", ...
        model: the shape of a model from scratch. Its vocabulary and its longest context follow from `tokenizer` and
            `pretrain`. None with a base.
        encoder: of the look-up by meaning; None looks up by words alone.
    """

    documents: str = ""
    base: str = SCRATCH
    size: str = "cria-3m"
    device: str = "auto"
    model: ModelConfig | None = None
    read: ReadConfig = field(default_factory=ReadConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    questions: QuestionsConfig = field(default_factory=QuestionsConfig)
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    encoder: EncoderConfig | None = None
    sft: FinetuneConfig = field(default_factory=FinetuneConfig)
    quantize: QuantConfig = field(
        default_factory=lambda: QuantConfig("int8", calibration_tokens=16_384, compare_tokens=16_384)
    )
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    report: ReportConfig = field(default_factory=ReportConfig)

    def __post_init__(self) -> None:
        require(
            self.base == SCRATCH or self.model is None,
            f"model is set, and so is base, {self.base!r}, which brings its own shape.",
            "Leave out the settings of model, or the base.",
        )


def scratch_sizes() -> list[str]:
    return list(_scratch_table())


def scratch(size: str, documents: str = "") -> RaiseConfig:
    """The recipe of a model from scratch of this size."""
    table = _scratch_table()
    if size not in table:
        raise ConfigError(f"There is no scratch size {size!r}.", hint=near(size, table))
    return from_dict(RaiseConfig, {**table[size], **_documents(documents), "size": size, "model": named_size(size)})


def from_base(base: str, documents: str = "") -> RaiseConfig:
    """The recipe of a base model that is trained on: low-rank adapters, at rates that keep what it knows."""
    table = tomllib.loads(_asset("base.toml"))
    return from_dict(RaiseConfig, {**table, **_documents(documents), "base": base})


def _scratch_table() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads(_asset("scratch.toml"))


def _asset(name: str) -> str:
    return resources.files("puna.recipes").joinpath(f"assets/{name}").read_text(encoding="utf-8")


def _documents(documents: str) -> dict[str, Any]:
    if documents:
        return {"documents": documents}
    return {"documents": "", "read": corpus.standard_library()[1]}


def raise_model(
    config: RaiseConfig, folder: Path, progress: Progress, *, until: str | None = None, force: tuple[str, ...] = ()
) -> dict[str, StageRecord]:
    """Runs the recipe in `folder`: skips what is unchanged, resumes what was cut off.

    Args:
        config: the whole of it; written to `folder/run.toml`.
        folder: the run folder.
        progress: who watches.
        until: the last stage to run; None for all.
        force: stages to run although nothing has changed.
    """
    with folder_lock(folder):
        write_text(folder / RUN_CONFIG, to_toml(config))
        records = Runner(folder, stages(config), progress, force).run(until)
        if "report" in records:
            page = (folder / "report" / REPORT).read_text(encoding="utf-8")
            write_text(folder / REPORT, page)
        return records


def stages(config: RaiseConfig) -> list[Stage]:
    """The chain of a config's stages."""
    return [*_document_stages(config), *_model_stages(config)]


def _document_stages(config: RaiseConfig) -> list[Stage]:
    """From the folder to tokens, questions and an index."""
    root = Path(config.documents).expanduser() if config.documents else corpus.standard_library()[0]
    base = _base(config)
    tokenizer = (
        partial(tokenize.take_tokenizer, base=base)
        if base
        else partial(tokenize.train_tokenizer, config=config.tokenizer)
    )
    reading = partial(read.read, root=root, config=config.read)
    splitting = partial(split.split_documents, config=config.split)
    asking = partial(questions.make_questions, config=config.questions)
    indexing = partial(index.build_index, max_chars=config.questions.built.passage_chars)
    reading_spans = partial(
        reader.make_reader, config=config.reader, passage_chars=config.questions.built.passage_chars
    )
    return [
        Stage("read", "documents", reading, config.read, outside=partial(read.source_hash, root)),
        Stage("split", "documents", splitting, config.split, ("read",)),
        Stage("tokenizer", "tokenizer", tokenizer, config.tokenizer, ("split",), outside=partial(_base_hash, base)),
        Stage("tokens", "tokens", tokenize.write_tokens, config.tokenizer, ("split", "tokenizer")),
        Stage("questions", "conversations", asking, config.questions, ("split",)),
        Stage("index", "index", indexing, config.questions.built, ("read",)),
        Stage("reader", "ranker", reading_spans, config.reader, ("split", "questions", "index")),
    ]


def _model_stages(config: RaiseConfig) -> list[Stage]:
    """From tokens and questions to a model, its scores and the report."""
    base, shape = _base(config), None
    if base:
        pretraining = partial(pretrain.continued, base=base, config=config.pretrain, device=config.device)
    else:
        # As long as the longest rows that any stage trains on.
        longest = max(config.pretrain.longest_context, config.sft.context_length)
        shape = replace(config.model or named_size(config.size), max_position_embeddings=longest)
        pretraining = partial(pretrain.from_scratch, shape=shape, config=config.pretrain, device=config.device)
    tuning = partial(finetune.finetune, config=config.sft, device=config.device)
    quantizing = partial(quantize.quantize_run, config=config.quantize, device=config.device)
    models = ("pretrain", "sft")
    looking_up = ("encoder",) if config.encoder else ()
    measured = replace(
        config.evaluate, context_length=config.evaluate.context_length or config.pretrain.longest_context
    )
    measuring = partial(evaluate.evaluate, models=models, config=measured, device=config.device)
    return [
        Stage(
            "pretrain",
            "checkpoint",
            pretraining,
            _Shaped(shape, config.pretrain),
            ("tokens", "tokenizer"),
            outside=partial(_base_hash, base),
            temporary=("state",),
        ),
        *_encoder_stage(config),
        Stage("sft", "checkpoint", tuning, config.sft, ("pretrain", "questions"), temporary=("state", "tokens")),
        Stage("quantize", "checkpoint", quantizing, config.quantize, ("split", "questions", "sft")),
        Stage(
            "evaluate",
            "scores",
            measuring,
            measured,
            ("split", "questions", "index", "reader", *looking_up, *models),
            version=3,
        ),
        Stage("report", "report", partial(report, config=config.report), config.report, ("quantize", "evaluate")),
    ]


def _encoder_stage(config: RaiseConfig) -> list[Stage]:
    """None where look-ups are by words alone."""
    if config.encoder is None:
        return []
    making = partial(encoder.make_encoder, config=config.encoder, device=config.device)
    inputs = ("split", "questions", "index", "reader", "pretrain")
    return [Stage("encoder", "encoder", making, config.encoder, inputs, temporary=("state", *encoder.TEMPORARY))]


def _base(config: RaiseConfig) -> Path | None:
    return None if config.base == SCRATCH else checkpoint_folder(config.base)


@dataclass(frozen=True, slots=True)
class _Shaped:
    """What decides the pre-training beside its inputs."""

    model: ModelConfig | None
    pretrain: PretrainConfig


def _base_hash(base: Path | None) -> dict[str, str]:
    return {} if base is None else {str(base): hash_folder(base)}
