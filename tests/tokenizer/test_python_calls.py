from __future__ import annotations

import ast
import keyword
import warnings
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from puna.core.chat import ToolCall
from puna.tokenizer.python_calls import PythonicCalls

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)


def accepted(text: str) -> tuple[int, PythonicCalls]:
    """How many characters are taken before one is refused."""
    reader = PythonicCalls()
    for at, char in enumerate(text):
        if not reader.push(char):
            assert reader.reason
            return at, reader
    return len(text), reader


def calls_in(text: str) -> list[ToolCall] | None:
    at, reader = accepted(text)
    return reader.calls if at == len(text) and reader.complete else None


@given(calls=st.lists(st.tuples(NAMES, st.dictionaries(NAMES, VALUES, max_size=3)), min_size=1, max_size=3))
@settings(max_examples=100)
def test_every_list_of_calls_is_read(calls: list[tuple[str, dict[str, Any]]]) -> None:
    """Argument names may be Python's keywords: `from` and `in` are natural names of arguments."""
    written = [f"{name}({', '.join(f'{key}={value!r}' for key, value in items.items())})" for name, items in calls]
    assert calls_in(f"[{', '.join(written)}]") == [ToolCall(name, items) for name, items in calls]


@given(text=st.text(alphabet="[](){}=,:'\"\\fax01.-eE \nrTrueNone_", max_size=20).map(lambda text: "[f(a=" + text))
@settings(max_examples=400)
@example(text="[f(a=1)]")
@example(text="[f(a=(1))]")
@example(text="[f(a='x''y')]")
@example(text="[f(a='''x'y''', a1=r'\\d')]")
def test_what_python_refuses_is_not_read_and_what_it_reads_is_the_same(text: str) -> None:
    found = calls_in(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError):
            return  # what is read beyond Python's grammar is tested by name
    if found is not None:
        assert isinstance(tree, ast.List)
        for call, node in zip(found, tree.elts, strict=True):
            assert isinstance(node, ast.Call)
            values = {item.arg: ast.literal_eval(item.value) for item in node.keywords if item.arg}
            assert {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()} == call.arguments


@given(text=st.text(alphabet="ab\\'\"nrtx041uN{}\n\r\0 é", max_size=12), triple=st.booleans(), raw=st.booleans())
@settings(max_examples=400)
@example(text="\\400\\777\\41", triple=False, raw=False)
@example(text="\\d\\.", triple=False, raw=False)
@example(text="\\d\\.", triple=False, raw=True)
@example(text='""a""', triple=True, raw=False)
def test_strings_are_read_as_python_reads_them(text: str, triple: bool, raw: bool) -> None:
    quotes = '"""' if triple else '"'
    source = f"{'r' * raw}{quotes}{text}{quotes}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = ast.literal_eval(source)
        except (SyntaxError, ValueError):
            return
    if "\r" in text:
        return  # Python's parser turns these into line breaks; ours keeps them
    found = calls_in(f"[f(a={source})]")
    if isinstance(expected, str):
        assert found == [ToolCall("f", {"a": expected})]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("[f()]", {}),
        ("[f(a=1,)]", {"a": 1}),
        (" [ f ( a = 1 ) ] \n", {"a": 1}),
        ("[f(a=1,\n   b=[1, 2,\n      3])\n]", {"a": 1, "b": [1, 2, 3]}),
        ("[f(a=true, b=false, c=null)]", {"a": True, "b": False, "c": None}),
        ("[f(a={'b': [true, {'c': None}]})]", {"a": {"b": [True, {"c": None}]}}),
        ("[f(a=-1, b=+2.5, c=-.5)]", {"a": -1, "b": 2.5, "c": -0.5}),
        ("[f(a=1e-3, b=0x1F, c=1_000)]", {"a": 0.001, "b": 31, "c": 1000}),
        ("[f(a=(1, 2), b=(), c=[], d={})]", {"a": [1, 2], "b": [], "c": [], "d": {}}),
        ("[f(a='it\\'s', b=\"it's\", c='say \"x\"')]", {"a": "it's", "b": "it's", "c": 'say "x"'}),
        ("[f(a='one'\n  'two')]", {"a": "onetwo"}),
        ("[f(a='x\ny\rz\0')]", {"a": "x\ny\rz\0"}),
        ("[f(a='''x\n\"y\" 'z' ''')]", {"a": "x\n\"y\" 'z' "}),
        ("[f(a='')]", {"a": ""}),
        ("[f(a='),(]')]", {"a": "),(]"}),
        ("[f(a=r'\\d+\\n')]", {"a": "\\d+\\n"}),
        ("[f(a='\\d')]", {"a": "\\d"}),
        ("[f(a='\\u00e9\\N{BULLET}')]", {"a": "é•"}),
        ("[f(a='\\ud83d\\ude00\\ud800')]", {"a": "😀\ufffd"}),
        ("[f(from='SFO', to='LAX', in=1, lambda=2)]", {"from": "SFO", "to": "LAX", "in": 1, "lambda": 2}),
        ("[f(a=1, **{'b-c': 2, '': 3})]", {"a": 1, "b-c": 2, "": 3}),
        ("[f(größe=1)]", {"größe": 1}),
    ],
)
def test_forms_of_a_call(text: str, arguments: dict[str, Any]) -> None:
    assert calls_in(text) == [ToolCall("f", arguments)]


def test_several_calls_and_dotted_names() -> None:
    calls = calls_in("[get_weather(city='San Francisco', metric='celsius'), weather.get(city='Seattle'),]")
    assert calls == [
        ToolCall("get_weather", {"city": "San Francisco", "metric": "celsius"}),
        ToolCall("weather.get", {"city": "Seattle"}),
    ]


@pytest.mark.parametrize("word", keyword.kwlist)
def test_keywords_of_python_name_arguments(word: str) -> None:
    assert calls_in(f"[f({word}=1)]") == [ToolCall("f", {word: 1})]


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("f(a=1)", 0),
        ("[]", 1),
        ("[1]", 1),
        ("[[f(a=1)]]", 1),
        ("['f(a=1)']", 1),
        ("[f]", 2),
        ("[link](http://x)", 5),
        ("[f(1)]", 3),
        ("[f('a')]", 3),
        ("[f(x)]", 4),
        ("[f(*x)]", 4),
        ("[f(a=1, 2)]", 8),
        ("[f(**[1])]", 8),
        ("[f(a=g(b=1))]", 5),
        ("[f(a=b)]", 5),
        ("[f(a=)]", 5),
        ("[f(a=1, a=2)]", 11),
        ("[f(a=1, **{'a': 2})]", 18),
        ("[f(a=1+2)]", 8),
        ("[f(a=1j)]", 7),
        ("[f(a=b'x')]", 5),
        ("[f(a=f'x')]", 6),
        ("[f(a={1, 2})]", 11),
        ("[f(a={1: 2})]", 11),
        ("[f(a={**x})]", 6),
        ("[f(a=[x for x in y])]", 6),
        ("[f(a=...)]", 8),
        ("[f(a=1e999)]", 10),
        ("[f(a=007)]", 8),
        ("[f(a=True1)]", 9),
        ("[f(a=1 2)]", 8),
        ("[f(a=[1)]", 7),
        ("[f(a=1]]", 6),
        ("[f(a=1:2)]", 6),
        ("[f(a=1) for x in y]", 8),
        ("[f(a=1)] ok", 9),
        ("[f(a=1)].x", 8),
        ("[f(a=1) g(b=2)]", 8),
        ("[f.(a=1)]", 3),
        ("[f..g(a=1)]", 5),
        ("[f-g(a=1)]", 2),
        ("[f(a-b=1)]", 4),
        ("[f(a==1)]", 5),
        ("[f(a=1 # x\n)]", 7),
        ("[f(a=r'\n')]", 7),
    ],
)
def test_a_text_is_refused_at_the_first_character_that_shows_it(text: str, at: int) -> None:
    assert accepted(text)[0] == at


@pytest.mark.parametrize("text", ["[f(a=1)", "[f(a=1),", "[f(a='x", "[", "", "  ", "[f(a=1", "[f(a='''x''"])
def test_a_beginning_is_accepted_and_incomplete(text: str) -> None:
    at, reader = accepted(text)
    assert at == len(text)
    assert not reader.complete


@pytest.mark.parametrize("bracket", ["[", "(", "{", "{'a':", "[f("])
def test_nesting_bombs_are_refused(bracket: str) -> None:
    assert accepted("[f(a=" + bracket * 100_000)[0] < 500


def test_long_numbers_are_refused() -> None:
    assert accepted("[f(a=" + "1" * 100_000)[0] < 5000
    assert calls_in("[f(a=" + "1" * 4300 + ")]") == [ToolCall("f", {"a": int("1" * 4300)})]
