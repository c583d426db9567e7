"""`puna data`: documents read from a folder, and the conversations that are made of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from puna.base.command_line import SETTINGS
from puna.base.config import override
from puna.base.progress import for_terminal


@click.group("data", context_settings=SETTINGS)
def command() -> None:
    """Read documents, and make conversations of them."""


@command.command("read")
@click.argument("documents", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Write the corpus here (Parquet); else only report.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of reading: max_bytes=1e6.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def read(documents: Path | None, out: Path | None, settings: tuple[str, ...], quiet: bool) -> None:
    """Read DOCUMENTS (default: the standard library) and say what was read and skipped."""
    from puna.data import corpus
    from puna.data.dedup import drop_exact
    from puna.data.readers.reader import ReadConfig

    root, config = (documents, ReadConfig()) if documents else corpus.standard_library()
    found, report = corpus.read_folder(root, override(config, settings), for_terminal(quiet))
    kept, dropped = drop_exact(found)
    click.echo(report.describe())
    click.echo(f"Exact duplicates dropped: {len(dropped):,}")
    if out:
        corpus.write(out, kept)
        click.echo(f"{len(kept):,} documents saved to {out}")


@command.command("questions")
@click.argument("documents", required=False, type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting: passage_chars=800.")
@click.option("--seed", default=0, show_default=True, help="Of the choice of questions.")
@click.option("--teacher", metavar="URL", help="Let a model at this OpenAI-compatible URL write more.")
@click.option("--teacher-model", default="", help="The teacher's model name.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def questions(
    documents: Path | None,
    out: Path,
    settings: tuple[str, ...],
    seed: int,
    teacher: str | None,
    teacher_model: str,
    quiet: bool,
) -> None:
    """Make question-answer conversations of DOCUMENTS and write them to OUT, one JSON object a line.

    Every answer is a quotation of its document, and says where it stands; some questions have no answer in their
    passage.
    """
    from puna.data import corpus
    from puna.data.conversations import QuestionConfig, build_conversations, write_conversations
    from puna.data.dedup import drop_exact
    from puna.data.readers.reader import ReadConfig

    progress = for_terminal(quiet)
    root, reading = (documents, ReadConfig()) if documents else corpus.standard_library()
    found, _ = corpus.read_folder(root, reading, progress)
    kept, _ = drop_exact(found)
    config = override(QuestionConfig(), settings)
    made = build_conversations(kept, config, seed)
    if teacher:
        from puna.recipes.teaching import TeachingConfig, taught_conversations

        cache = out.with_suffix(".teacher")
        taught, _ = taught_conversations(
            kept, config.passage_chars, TeachingConfig(teacher, teacher_model), cache, progress
        )
        made += taught
    write_conversations(out, made)
    kinds = Counter(kind for conversation in made for kind in conversation.meta.get("kinds", ()))
    for kind, count in kinds.most_common():
        click.echo(f"{count:7,}  {kind}")
    click.echo(f"{len(made):,} conversations saved to {out}")
