from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from puna.base.files import read_jsonl
from puna.core.verdict import Task
from puna.evals.harness import HarnessConfig, Subject, compare_folders, evaluate, samples_path
from puna.evals.suites import Suite
from puna.testing import ScriptedChatModel
from puna.view.evaluation import SHOWN, evaluation_page


class Text(HTMLParser):
    """The page's text and the attributes that would fetch something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.fetched = "", []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value for name, value in attrs if name == "src" or (name == "href" and value[:1] != "#")]


def test_the_page_shows_scores_comparisons_and_samples_and_fetches_nothing(tmp_path: Path) -> None:
    tasks = tuple(Task(str(i), f"<b>{i}</b>?", f"#### {i}", "odd" if i % 2 else "even") for i in range(SHOWN + 4))
    suite = Suite("sums", "number", tasks)
    for name, answer in (("one", "#### 0"), ("two", "<script>alert(1)</script> #### 1")):
        model = ScriptedChatModel(lambda messages, answer=answer: answer)
        results = evaluate(Subject(name, model), [suite], HarnessConfig(), tmp_path / name)
    rows = list(read_jsonl(samples_path(tmp_path / "two", "sums")))
    page = evaluation_page(results, {"sums": rows}, "one", compare_folders(tmp_path / "one", tmp_path / "two"))
    seen = Text(page)
    assert seen.fetched == []
    assert "<script>" not in page and "<script>alert(1)</script> #### 1" in seen.text
    for wanted in ("Evaluation of two", "Beside one", "McNemar, exact", "4.2%", "<b>7</b>?", "by kind", "even"):
        assert wanted in seen.text, wanted
    assert f"The first {SHOWN} of {SHOWN + 4} samples" in seen.text and f"<b>{SHOWN}</b>?" not in seen.text
