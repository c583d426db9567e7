"""The chat page: its files and their policy, its modules under Node, and the whole of it in headless Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from puna.apps.chat.page import POLICY, assets, router

WEB = Path(__file__).parents[3] / "src/puna/apps/chat/web"
HOSTILE = [
    "<script>window.hurt=1</script>",
    "<img src=x onerror='window.hurt=1'>",
    "<svg/onload=window.hurt=1>",
    "<iframe srcdoc='<script>parent.hurt=1</script>'></iframe>",
    "[click](javascript:window.hurt=1)",
    "[click](java\tscript:window.hurt=1)",
    "[click](data:text/html,<script>window.hurt=1</script>)",
    "![x](https://evil.example/pixel.png)",
    "<a href='javascript:window.hurt=1'>x</a>",
    '[x](https://a.example/"onmouseover="window.hurt=1)',
    "```html\n<script>window.hurt=1</script>\n```",
    "`<img src=x onerror=window.hurt=1>`",
    "| <img src=x onerror=window.hurt=1> | b |\n|---|---|\n| <script>window.hurt=1</script> | [x](vbscript:x) |",
    "<style>body{display:none}</style><link rel=stylesheet href=https://evil.example/a.css>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.hurt=1>",
    "</article></div><form action=https://evil.example><button>x",
    "<base href=https://evil.example/><meta http-equiv=refresh content='0;url=https://evil.example'>",
    "&lt;script&gt;window.hurt=1&lt;/script&gt; &#60;img src=x onerror=window.hurt=1&#62;",
    "<https://evil.example/<script>window.hurt=1</script>>",
    '```"><script>window.hurt=1</script>\nx\n```',
]


def client() -> TestClient:
    app = FastAPI()
    app.include_router(router)
    return TestClient(app, raise_server_exceptions=False)


def test_the_page_and_all_that_it_names_are_served_under_the_policy():
    web = client()
    page = web.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = set(re.findall(r'(?:src|href)="(/[^"]+)"', page.text))
    scripts = {f"/assets/{name}" for name in assets() if name.endswith(".js")}
    assert "/assets/main.js" in named
    for path in named | scripts:
        answer = web.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert web.get("/assets/main.js").headers["content-type"] == "text/javascript; charset=utf-8"


def test_a_file_that_is_known_is_not_sent_again():
    web = client()
    tag = web.get("/").headers["etag"]
    again = web.get("/", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert web.head("/").status_code == 200


@pytest.mark.parametrize("name", ["page.py", "..%2Fpage.py", "%2e%2e/page.py", "nothing.js", "../../session.py"])
def test_nothing_but_the_pages_files_is_served(name: str):
    assert client().get(f"/assets/{name}").status_code in (404, 500)


def test_every_import_is_a_file_of_the_page_and_no_file_names_another_host():
    for path in WEB.glob("*"):
        text = path.read_text(encoding="utf-8")
        for imported in re.findall(r'from "([^"]+)"', text):
            assert (WEB / imported).is_file(), f"{path.name} imports {imported}"
        hosts = set(re.findall(r"https?://[\w.]+", text)) - {"http://www.w3.org"}
        assert not hosts, f"{path.name} names {hosts}"


def test_no_module_makes_markup_from_strings():
    forbidden = re.compile(r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(|new Function)")
    for path in WEB.glob("*.js"):
        code = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("//"))
        assert not forbidden.search(code), path.name


def test_the_page_is_light():
    assert sum(len(content) for content, _ in assets().values()) < 150_000


def test_the_modules_do_what_they_say(tmp_path: Path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no Node on this machine")
    for path in WEB.glob("*.js"):
        shutil.copy(path, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    test = Path(__file__).parent / "web/modules.test.mjs"
    done = subprocess.run([node, str(test), str(tmp_path)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


# In a browser ---------------------------------------------------------------------------------------------------------


class Visit:
    """A page in a browser that reaches the server alone."""

    def __init__(self, context: Any, url: str) -> None:
        self.foreign: list[str] = []
        self.errors: list[str] = []
        self.context, self.url = context, url
        context.route("**/*", self._route)
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if "Content Security" in said.text else None)
        self.open()

    def _route(self, route: Any) -> None:
        if route.request.url.startswith((self.url, "blob:")):
            route.continue_()
        else:
            self.foreign.append(route.request.url)
            route.abort()

    def open(self) -> None:
        self.page.goto(self.url)
        self.page.wait_for_selector("body[data-ready=true]")

    def say(self, text: str, wait: bool = True) -> None:
        self.page.fill("#entry", text)
        self.page.press("#entry", "Enter")
        if wait:
            self.settle()

    def until(self, holds: str) -> None:
        """Waits for a condition. Playwright's own waiting makes code from a text, which the page's policy forbids."""
        self.wait_for(lambda: self.page.evaluate(holds))

    def wait_for(self, holds: Callable[[], Any], seconds: float = 20.0) -> None:
        """Waits for something outside the page, whose requests go on meanwhile."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "it did not happen"
            self.page.wait_for_timeout(20)

    def settle(self) -> None:
        self.page.wait_for_selector(".turn.assistant")
        self.until("!document.querySelector('[aria-busy=true]')")

    def turns(self, role: str = "") -> list[str]:
        found = self.page.query_selector_all(f".turn{f'.{role}' if role else ''} > .body")
        return [turn.text_content() for turn in found]

    def press(self, name: str, which: int = -1) -> None:
        found = self.page.get_by_role("button", name=name, exact=True)
        (found.last if which < 0 else found.nth(which)).click()


@pytest.fixture
def visit(browser: Any, server: Any, request: pytest.FixtureRequest) -> Iterator[Visit]:
    if ready := getattr(request, "param", None):
        ready(server)
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    context.set_default_timeout(20_000)
    found = Visit(context, server.url)
    yield found
    context.close()
    assert not found.errors
    assert not found.foreign


def test_an_answer_streams_and_is_kept_on_the_server(visit: Visit, server: Any):
    server.answers = ["Llamas **eat** grass.\n\n```python\nx = 1\n```"]
    visit.say("What do llamas eat?")
    assert visit.turns("user") == ["What do llamas eat?"]
    assert visit.page.inner_text(".turn.assistant .body strong") == "eat"
    assert visit.page.inner_text(".turn.assistant pre") == "x = 1"
    facts = visit.page.inner_text(".facts")
    assert "tokens" in facts
    assert "$" in facts
    assert server.asked[0]["messages"] == [{"role": "user", "content": "What do llamas eat?"}]
    assert server.asked[0]["stream_options"] == {"include_usage": True}
    visit.until("document.querySelector('.list .open')?.textContent.startsWith('What do')")
    visit.wait_for(lambda: any(item["role"] == "assistant" for item in server.items.get("conv_0", [])))
    assert server.conversations["conv_0"]["metadata"]["title"] == "What do llamas eat?"


def test_an_answer_is_stopped_and_the_server_is_told(visit: Visit, server: Any):
    server.answers, server.pause = ["one two three four five six seven eight nine ten " * 20], 0.05
    visit.say("Count.", wait=False)
    visit.until("document.querySelector('.turn.assistant .body')?.textContent.includes('three')")
    visit.press("Stop")
    visit.settle()
    assert "stopped" in visit.page.inner_text(".facts")
    assert visit.turns("assistant")[0].startswith("one two three")
    visit.wait_for(lambda: server.closed == 1)
    server.pause = 0.0
    visit.say("Go on.")
    assert visit.turns("assistant")[1] == "You said: Go on."


def test_an_edit_is_a_branch_that_can_be_switched_and_survives_a_reload(visit: Visit, server: Any):
    visit.say("First")
    visit.press("Edit and ask again")
    visit.page.fill(".editing textarea", "Second")
    visit.press("Ask again")
    visit.settle()
    assert visit.turns() == ["Second", "You said: Second"]
    visit.press("Earlier version", 0)
    assert visit.turns() == ["First", "You said: First"]
    visit.press("Answer again")
    visit.settle()
    assert len(server.asked) == 3
    visit.open()
    assert visit.turns() == ["First", "You said: First"]
    assert visit.page.locator(".switch").all_inner_texts() == ["1 / 2", "2 / 2"]
    visit.page.keyboard.press("Escape")
    visit.press("Later version", 0)
    assert visit.turns() == ["Second", "You said: Second"]


def test_another_browser_finds_the_conversation_with_its_branches(visit: Visit, server: Any, browser: Any):
    visit.say("First")
    visit.press("Answer again")
    visit.settle()
    visit.wait_for(
        lambda: len(server.items.get("conv_0", [])) == 3 and "tree0" in server.conversations["conv_0"]["metadata"]
    )
    context = browser.new_context()
    other = Visit(context, server.url)
    other.page.click(".list .open")
    other.page.wait_for_selector(".turn.assistant")
    assert other.turns() == ["First", "You said: First"]
    assert other.page.inner_text(".switch") == "2 / 2"
    context.close()


def test_a_draft_and_a_half_answer_survive_a_reload(visit: Visit, server: Any):
    server.answers, server.pause = ["word " * 200], 0.02
    visit.say("Tell.", wait=False)
    visit.page.wait_for_timeout(1500)
    visit.page.fill("#entry", "a draft")
    visit.open()
    assert visit.page.input_value("#entry") == "a draft"
    assert visit.turns("assistant")[0].startswith("word word")
    assert "stopped" in visit.page.inner_text(".facts")


def test_an_attached_file_is_sent_with_the_question(visit: Visit, server: Any):
    note = {"name": "note.txt", "mimeType": "text/plain", "buffer": "Llamas hum. 🦙".encode()}
    visit.page.set_input_files("#attach", note)
    visit.page.wait_for_selector(".box .chip")
    visit.say("What do they do?")
    sent = server.asked[0]["messages"][0]["content"]
    assert sent == "Attached file note.txt:\n\nLlamas hum. 🦙\n\nWhat do they do?"
    assert server.files["file_0"] == ("note.txt", "Llamas hum. 🦙".encode())
    assert visit.page.inner_text(".turn.user .chip") == "note.txt"


def test_a_file_that_is_no_text_is_read_through_a_library(visit: Visit, server: Any):
    file = {"name": "a.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7 llamas"}
    visit.page.set_input_files("#attach", file)
    visit.page.wait_for_selector(".segments [aria-pressed=true]:text('Library')")
    server.answers = ["As [1] says."]
    visit.say("What?")
    assert "[1] a.pdf" in server.asked[0]["messages"][0]["content"]
    visit.page.click(".turn.assistant .mark")
    visit.page.wait_for_selector("mark#cited")
    assert visit.page.inner_text("mark#cited") == "%PDF-1.7 llamas"


def has_reader(server: Any) -> None:
    cited = {"source": "puna.txt", "start": 25, "end": 44, "text": "A llama eats grass.", "heading": "Food"}
    answer = {"text": "A llama eats grass.", "citations": [cited], "confidence": 0.87}
    server.reader = {"What does a llama eat?": answer}


@pytest.mark.parametrize("visit", [has_reader], indirect=True)
def test_a_citation_opens_the_source_at_the_cited_words(visit: Visit, server: Any):
    visit.say("What does a llama eat?")
    assert visit.page.inner_text("blockquote.quotation") == "A llama eats grass."
    assert "confidence 87 %" in visit.page.inner_text(".facts")
    assert server.asked == []
    visit.page.click(".source")
    visit.page.wait_for_selector("mark#cited")
    assert visit.page.inner_text("mark#cited") == "A llama eats grass."
    assert "from character 25 on" in visit.page.inner_text(".checked")
    assert visit.page.inner_text(".document").startswith("Grüße 🦙")
    visit.page.keyboard.press("Escape")
    assert visit.page.locator("#drawer").is_hidden()
    visit.say("Something else?")
    assert visit.turns("assistant")[-1] == "The text does not say."
    visit.press("Ask the model instead")
    visit.until("document.querySelectorAll('.turn.assistant .body p').length")
    visit.settle()
    assert visit.turns("assistant")[-1] == "You said: Something else?"


def test_hostile_text_stays_text(visit: Visit, server: Any):
    server.answers = list(HOSTILE)
    for text in HOSTILE:
        visit.say(text)
    visit.page.hover(".turn.assistant")
    assert visit.page.evaluate("window.hurt") is None
    thread = "#thread .turn"
    for tag in ("script", "img", "iframe", "style", "link", "form", "base", "meta", "object", "math"):
        assert visit.page.locator(f"{thread} {tag}").count() == 0, tag
    links = visit.page.eval_on_selector_all(f"{thread} a", "links => links.map((link) => link.getAttribute('href'))")
    assert links
    assert all(re.match(r"https?://", link) for link in links)
    on = "nodes => nodes.flatMap((n) => [...n.attributes]).filter((a) => /^on|^srcdoc$|^style$/.test(a.name)).length"
    assert visit.page.eval_on_selector_all(f"{thread} *", on) == 0
    shown = visit.turns("assistant")
    assert "<script>window.hurt=1</script>" in shown[0]
    assert visit.turns("user") == [text.strip() for text in HOSTILE]


def test_hostile_titles_and_settings_stay_text(visit: Visit, server: Any):
    server.models = ["<img src=x onerror=window.hurt=1>"]
    visit.open()
    server.answers = ["ok"]
    visit.say("<img src=x onerror=window.hurt=1>")
    visit.open()
    assert visit.page.evaluate("window.hurt") is None
    assert visit.page.locator("#side li img, #top img").count() == 0


def test_conversations_are_found_renamed_exported_imported_and_deleted(visit: Visit, server: Any, tmp_path: Path):
    visit.say("About llamas")
    visit.press("New conversation")
    visit.say("About grass")
    visit.page.fill("#search", "llama")
    assert visit.page.locator(".list .open").all_inner_texts() == ["About llamas"]
    more = "More about “About llamas”"
    visit.page.get_by_role("button", name=more).click(force=True)
    visit.press("Rename")
    visit.page.get_by_role("textbox", name="Title").fill("Camelids")
    visit.press("Rename")
    visit.page.fill("#search", "")
    visit.page.wait_for_selector(".list .open:text('Camelids')")
    for button, kind in (("Export as Markdown", ".md"), ("Export as JSON", ".json")):
        visit.page.get_by_role("button", name="More about “Camelids”").click(force=True)
        with visit.page.expect_download() as caught:
            visit.press(button)
        assert caught.value.suggested_filename == f"Camelids{kind}"
        caught.value.save_as(tmp_path / f"a{kind}")
    assert "**You**\n\nAbout llamas" in (tmp_path / "a.md").read_text()
    visit.page.get_by_role("button", name="More about “Camelids”").click(force=True)
    visit.press("Delete")
    visit.press("Delete")
    visit.until("document.querySelectorAll('.list .open').length === 1")
    visit.wait_for(lambda: [one["metadata"]["title"] for one in server.conversations.values()] == ["About grass"])
    visit.page.set_input_files("#side input[type=file]", str(tmp_path / "a.json"))
    visit.page.wait_for_selector(".turn.assistant")
    assert visit.turns() == ["About llamas", "You said: About llamas"]
    assert json.loads((tmp_path / "a.json").read_text())["title"] == "Camelids"


def test_settings_go_with_the_request_and_are_kept(visit: Visit, server: Any):
    visit.press("Settings (Alt S)")
    visit.page.get_by_label("System prompt").fill("Be brief.")
    visit.page.get_by_label("Temperature").fill("0.3")
    visit.page.get_by_label("Max tokens").fill("40")
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Escape")
    visit.say("Hi")
    asked = server.asked[0]
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (asked["temperature"], asked["max_tokens"]) == (0.3, 40)
    visit.open()
    visit.say("More")
    assert server.asked[1]["temperature"] == 0.3


def test_what_the_context_does_not_hold_is_left_out_and_said(visit: Visit, server: Any):
    server.answers = ["word " * 70, "short"]
    visit.say("First question")
    visit.say("Second question")
    assert server.asked[1]["messages"] == [{"role": "user", "content": "Second question"}]
    assert "was not sent" in visit.page.inner_text(".cut")
    visit.until("document.querySelector('.meter').textContent.includes('of 120 tokens')")


def test_two_models_answer_side_by_side_and_one_is_kept(visit: Visit, server: Any):
    server.answers = ["from one", "from two"]
    visit.press("Two models side by side (Alt C)")
    visit.say("Both?")
    assert {asked["model"] for asked in server.asked} == set(server.models)
    assert sorted(visit.turns("assistant")) == ["from one", "from two"]
    visit.press("Go on with this one")
    visit.press("Keep them")
    visit.wait_for(lambda: len(server.feedback) == 1)
    pair = server.feedback[0]
    assert (pair["kind"], pair["source"], pair["consent"]) == ("pair", "compare", True)
    assert pair["chosen"]["content"] == visit.page.inner_text(".beside .turn:not(.unchosen) > .body")
    visit.press("Two models side by side (Alt C)")
    visit.say("Next")
    assert server.asked[-1]["messages"][1] == pair["chosen"]


def test_thumbs_and_edits_are_kept_only_with_consent(visit: Visit, server: Any):
    visit.say("Question")
    visit.press("Good answer")
    visit.press("Do not keep them")
    visit.press("Edit this answer")
    visit.page.fill(".editing textarea", "Better")
    visit.press("Keep as a new version")
    visit.page.wait_for_timeout(200)
    assert server.feedback == []
    assert visit.turns("assistant") == ["Better"]
    visit.press("Settings (Alt S)")
    visit.page.get_by_label("Keep my ratings and edits").check()
    visit.page.keyboard.press("Escape")
    visit.press("Bad answer")
    visit.wait_for(lambda: len(server.feedback) == 2)
    assert [record["kind"] for record in server.feedback] == ["rating", "pair"]
    assert server.feedback[1]["rejected"]["content"] == "Better"


def test_a_tool_call_is_shown_and_answered(visit: Visit, server: Any):
    start = {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": '{"place": '}}
    rest = {"index": 0, "function": {"arguments": '"Puno"}'}}
    server.answers = [[{"tool_calls": [start]}, {"tool_calls": [rest]}], "It is cold."]
    visit.say("Weather?")
    assert "Tool call: weather" in visit.page.inner_text(".fold summary")
    assert json.loads(visit.page.inner_text(".fold pre")) == {"place": "Puno"}
    visit.page.get_by_label("Result of weather").fill("3 °C")
    visit.press("Give this result")
    visit.until("document.querySelectorAll('.turn.assistant').length === 2")
    visit.settle()
    assert visit.turns("assistant")[1] == "It is cold."
    calls = server.asked[1]["messages"][1]["tool_calls"]
    function = {"name": "weather", "arguments": '{"place": "Puno"}'}
    assert calls == [{"id": "call_1", "type": "function", "function": function}]
    assert server.asked[1]["messages"][2] == {"role": "tool", "tool_call_id": "call_1", "content": "3 °C"}


def forbids_poison(server: Any) -> None:
    server.shields = {"words": "poison"}


@pytest.mark.parametrize("visit", [forbids_poison], indirect=True)
def test_the_guards_verdicts_are_shown_and_hold(visit: Visit, server: Any):
    assert "Guard: words" in visit.page.inner_text(".guard")
    visit.say("Is grass poison?", wait=False)
    visit.page.wait_for_selector(".verdict.error")
    assert "That is not for here." in visit.page.inner_text(".verdict.error")
    assert server.asked == []
    server.answers = ["Much poison here."]
    visit.say("Tell me.", wait=False)
    visit.page.wait_for_selector(".turn.assistant .verdict.error")
    assert "poison" not in visit.turns("assistant")[-1]
    assert server.asked[0]["messages"] == [{"role": "user", "content": "Tell me."}]
    assert "blocked" in visit.page.locator(".turn.assistant .verdict").last.inner_text()


def test_where_there_is_no_guard_the_page_says_so(visit: Visit):
    assert visit.page.inner_text(".guard") == "No guard"


def test_probabilities_of_tokens_are_shown(visit: Visit, server: Any):
    def one(token: str, logprob: float) -> dict[str, Any]:
        top = [{"token": token, "logprob": logprob}, {"token": " hay", "logprob": -3.0}]
        return {"content": token, "logprobs": {"content": [{"token": token, "logprob": logprob, "top_logprobs": top}]}}

    server.answers = [[one("Fresh", -0.01), one(" grass", -1.5)]]
    visit.press("Settings (Alt S)")
    visit.page.get_by_label("Ask for the probabilities").check()
    visit.page.keyboard.press("Escape")
    visit.say("What?")
    assert (server.asked[0]["logprobs"], server.asked[0]["top_logprobs"]) == (True, 5)
    visit.press("Probabilities of the tokens")
    visit.page.focus(".tokens")
    visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press("ArrowRight")
    about = visit.page.inner_text(".about")
    assert "22 %" in about
    assert "␣hay" in about
    assert visit.page.locator(".token.t3").inner_text() == " grass"


def test_what_the_terminal_said_meanwhile_is_taken_in(visit: Visit, server: Any):
    visit.say("First")
    visit.wait_for(lambda: len(server.items.get("conv_0", [])) == 2)
    visit.page.wait_for_timeout(300)
    told = [{"type": "message", "role": role, "content": [{"text": role}]} for role in ("user", "assistant")]
    server.items["conv_0"] += server._named(told)
    visit.say("Second")
    assert visit.turns() == ["First", "You said: First", "Second", "You said: Second"]
    visit.wait_for(lambda: server.conversations["conv_0"]["metadata"].get("tree0") == "4:1")
    visit.press("Later version")
    assert visit.turns() == ["First", "You said: First", "user", "assistant"]
    server.items["conv_0"] += server._named([{"type": "message", "role": "user", "content": "more"}])
    visit.open()
    visit.until("document.querySelectorAll('.turn').length === 5")
    assert visit.turns()[-1] == "more"


def test_a_conversation_that_the_server_lost_is_given_to_it_anew(visit: Visit, server: Any):
    visit.say("First")
    visit.wait_for(lambda: len(server.items.get("conv_0", [])) == 2)
    server.conversations.clear()
    server.items.clear()
    visit.say("Second")
    visit.say("Third")
    visit.wait_for(lambda: len(server.items.get("conv_0", [])) == 6)
    assert [item["role"] for item in server.items["conv_0"]] == ["user", "assistant"] * 3


def wants_a_key(server: Any) -> None:
    server.key = "puna-secret"


@pytest.mark.parametrize("visit", [wants_a_key], indirect=True)
def test_a_server_with_keys_asks_for_one(visit: Visit, server: Any):
    assert "wants an API key" in visit.page.inner_text(".welcome")
    visit.press("Settings (Alt S)")
    visit.page.get_by_label("API key").fill("puna-secret")
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Escape")
    visit.page.wait_for_selector("#top select >> text=local/cria", state="attached")
    visit.say("Hi")
    assert visit.turns("assistant") == ["You said: Hi"]
    assert "puna-secret" not in visit.page.evaluate("JSON.stringify(localStorage)")


def test_an_error_is_shown_with_the_servers_words(visit: Visit, server: Any):
    server.models = []
    body = json.dumps({"error": {"message": "No memory left."}})
    visit.page.route("**/v1/chat/completions", lambda route: route.fulfill(status=503, body=body))
    visit.say("Hi")
    assert visit.page.inner_text("[role=alert]") == "No memory left."
    visit.page.unroute("**/v1/chat/completions")
    visit.press("Answer again")
    visit.until("document.querySelector('.turn.assistant .body').textContent.includes('You said')")
    assert visit.turns("assistant") == ["You said: Hi"]


def test_the_keyboard_does_it_all(visit: Visit, server: Any):
    keys = visit.page.keyboard
    keys.type("One")
    keys.press("Enter")
    visit.settle()
    keys.press("Alt+r")
    visit.page.wait_for_selector(".switch")
    visit.settle()
    assert visit.page.inner_text(".switch") == "2 / 2"
    keys.press("Alt+ArrowLeft")
    assert visit.page.inner_text(".switch") == "1 / 2"
    visit.page.focus("#thread")
    keys.press("?")
    assert "Keyboard" in visit.page.inner_text("dialog")
    keys.press("Escape")
    keys.press("Alt+n")
    assert visit.turns() == []
    keys.press("Control+k")
    assert visit.page.evaluate("document.activeElement.id") == "search"
    keys.press("Alt+d")
    assert visit.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_small_screen_has_no_sideways_scrolling(visit: Visit, server: Any):
    visit.page.set_viewport_size({"width": 360, "height": 640})
    visit.open()
    table = "| a | b |\n|---|---|\n| " + "x" * 80 + " | y |"
    server.answers = ["A `" + "long_word" * 20 + "`\n\n" + table + "\n\n```\n" + "z" * 300 + "\n```"]
    visit.say("Show " + "w" * 120)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert visit.page.locator("#side").is_hidden()
    visit.page.get_by_role("button", name="Show or hide the list (Alt B)").click()
    assert visit.page.locator("#side").is_visible()


def test_five_hundred_messages_are_drawn_in_good_time(visit: Visit, server: Any, tmp_path: Path):
    roles = ("user", "assistant") * 250
    messages = [{"role": role, "content": f"**{i}** " + "word " * 40} for i, role in enumerate(roles)]
    (tmp_path / "long.json").write_text(json.dumps({"messages": messages}))
    visit.page.set_input_files("#side input[type=file]", str(tmp_path / "long.json"))
    visit.until("document.querySelectorAll('.turn').length === 500")
    visit.say("And now?")
    assert visit.page.locator(".turn.user > .body").last.text_content() == "And now?"
    below = "(t => t.scrollHeight - t.scrollTop - t.clientHeight)(document.querySelector('#thread'))"
    assert visit.page.evaluate(below) < 100


def test_axe_finds_nothing(visit: Visit, server: Any):
    axe = pytest.importorskip("axe_playwright_python", reason="the package axe-playwright-python is not installed")
    script = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    server.answers = ["# A\n\n[x](https://a.example) `code`\n\n| a |\n|---|\n| b |\n\n```py\nx = 1 # why\n```"]
    visit.say("Show")
    for theme in ("light", "dark"):
        visit.page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        for panel in ("", "settings", "library"):
            if panel:
                visit.page.keyboard.press({"settings": "Alt+s", "library": "Alt+l"}[panel])
                visit.page.wait_for_timeout(200)
            visit.page.evaluate(script)
            found = visit.page.evaluate(
                "axe.run().then((r) => r.violations.map((v) => "
                "`${v.id}: ${v.nodes.map((n) => n.html + n.failureSummary).join('; ')}`))"
            )
            assert found == [], f"{theme} {panel}: {found}"
        visit.page.keyboard.press("Escape")


def test_the_page_and_the_real_server_fit_together(browser: Any, served: Any, tmp_path: Path):
    from puna.stack.app import make_app
    from puna.stack.testing import ScriptedProvider, make_stack

    app = make_app(make_stack(tmp_path, ScriptedProvider(answers=["Hello **you**.", "Again."])))
    app.include_router(router)
    with served(app, lifespan="on") as url:
        context = browser.new_context()
        context.set_default_timeout(20_000)
        visit = Visit(context, url)
        visit.say("Hi")
        assert visit.turns("assistant") == ["Hello you."]
        visit.press("Answer again")
        visit.settle()
        note = {"name": "note.txt", "mimeType": "text/plain", "buffer": b"Llamas hum."}
        visit.page.set_input_files("#attach", note)
        visit.page.wait_for_selector(".box .chip")
        visit.say("What?")
        visit.press("Good answer")
        visit.press("Keep them")
        with httpx.Client(base_url=url, trust_env=False) as client:
            visit.wait_for(lambda: len(client.get("/v1alpha/feedback").json()["data"]) == 1)
            kept = visit.page.evaluate(KEPT)
            visit.wait_for(lambda: len(client.get(f"/v1/conversations/{kept}/items").json()["data"]) == 5)
            metadata = client.get(f"/v1/conversations/{kept}").json()["metadata"]
        assert metadata["tree0"] == "2:0"
        visit.open()
        assert visit.turns()[:2] == ["Hi", "Again."]
        context.close()
        assert not visit.errors + visit.foreign


KEPT = """new Promise((resolve) => {
  indexedDB.open("puna-chat").onsuccess = (event) => {
    const asked = event.target.result.transaction("conversations").objectStore("conversations").getAll();
    asked.onsuccess = () => resolve(asked.result[0].remote);
  };
})"""


def test_the_scripted_server_speaks_the_api(server: Any):
    """That the tests above test the page against what the documents say, and not against a mistake."""
    body = {"messages": [{"role": "user", "content": "a b"}]}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, trust_env=False)
    lines = [line for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line[6:]) for line in lines[:-1]]
    said = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"]]
    assert "".join(said) == "You said: a b"
    assert chunks[-1]["usage"]["completion_tokens"] == 4
