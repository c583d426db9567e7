from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.base.errors import TokenizerError
from puna.tokenizer import Tokenizer
from puna.tokenizer.formats import (
    byte_order,
    merges,
    read_tiktoken,
    read_tokenizer_json,
    tiktoken_bytes,
    tokenizer_json,
)

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def content(small: Tokenizer) -> dict[str, Any]:
    return tokenizer_json(small.ranks, small.special)


@pytest.fixture(scope="module")
def hugging_face(content: dict[str, Any]) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_tiktokens_file_comes_back(small: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(tiktoken_bytes(small.ranks))
    assert read_tiktoken(path) == small.ranks


def test_llamas_file_is_written_byte_by_byte(llama: Tokenizer, llama_file: Path) -> None:
    assert tiktoken_bytes(llama.ranks) == llama_file.read_bytes()


def test_the_lines_may_stand_in_any_order(small: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"\r\n\n".join(reversed(tiktoken_bytes(small.ranks).splitlines())))
    assert read_tiktoken(path) == small.ranks


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"*** 700", "line 3 is '\\*\\*\\* 700'"),
        (b"YWI=", "line 3 .* a token in base64"),
        (b"YWI= x", "line 3"),
        (b"YWI= 1 2", "line 3"),
        (b"YWI 700", "line 3"),
        ("é 700".encode("latin-1"), "line 3"),
        (b"YWI= 1", "line 3: rank 1 stands in line 2 too"),
        (b"IQ== 700", "line 3: token b'!' stands in line 1 too"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"IQ== 0\nIg== 1\n" + line + b"\n")
    with pytest.raises(TokenizerError, match=message) as caught:
        read_tiktoken(path)
    assert caught.value.hint


@pytest.mark.parametrize("cut", [1, 10, 1000, 5000])
def test_a_file_cut_short_is_refused(small: Tokenizer, tmp_path: Path, cut: int) -> None:
    """Unless the cut falls between two lines after the single bytes: nothing tells how many there were."""
    path = tmp_path / "tokenizer.model"
    data = tiktoken_bytes(small.ranks)
    path.write_bytes(data[:cut])
    with pytest.raises(TokenizerError):
        read_tiktoken(path)
    path.write_bytes(data[cut:])
    with pytest.raises(TokenizerError):
        read_tiktoken(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "no token for 256"), (b"\n\x0e\n\x05<unk>\x15", "SentencePiece"), (b"\x80\x02}q", "line 1")],
)
def test_files_of_other_kinds_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data)
    with pytest.raises(TokenizerError, match=message):
        read_tiktoken(path)


@pytest.mark.parametrize("read", [read_tiktoken, read_tokenizer_json])
def test_files_that_are_not_there(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    with pytest.raises(TokenizerError):
        read(tmp_path / "absent")
    with pytest.raises(TokenizerError):
        read(tmp_path)


def test_tokenizer_json_comes_back(small: Tokenizer, content: dict[str, Any], tmp_path: Path) -> None:
    assert read_tokenizer_json(write(tmp_path / "a.json", content)) == (small.ranks, small.special)
    paired = copy.deepcopy(content)
    paired["model"]["merges"] = [merge.split(" ") for merge in content["model"]["merges"]]
    assert read_tokenizer_json(write(tmp_path / "b.json", paired)) == (small.ranks, small.special)


def test_what_tokenizers_saves_comes_back(small: Tokenizer, hugging_face: tokenizers.Tokenizer, tmp_path: Path) -> None:
    hugging_face.save(str(tmp_path / "tokenizer.json"))
    assert read_tokenizer_json(tmp_path / "tokenizer.json") == (small.ranks, small.special)


def test_other_names_of_special_tokens_are_kept(content: dict[str, Any], small: Tokenizer, tmp_path: Path) -> None:
    content = copy.deepcopy(content)
    for token in content["added_tokens"]:
        token["content"] = f"<｜{token['id']}｜>"
        token["special"] = False
    ranks, special = read_tokenizer_json(write(tmp_path / "a.json", content))
    assert special == {f"<｜{id}｜>": id for id in small.special.values()}
    renamed = Tokenizer(ranks, special)
    assert renamed.eot_id == small.eot_id
    assert renamed.encode(f"<｜{small.eot_id}｜>", allow_special=True) == [small.eot_id]


def _other_order(data: dict[str, Any]) -> None:
    data["model"]["merges"].reverse()


def _one_merge_for_each_token(data: dict[str, Any]) -> None:
    seen: set[str] = set()
    kept = []
    for merge in data["model"]["merges"]:
        if (whole := merge.replace(" ", "")) not in seen:
            seen.add(whole)
            kept.append(merge)
    data["model"]["merges"] = kept


CHANGES: dict[str, tuple[Change, str]] = {
    "wordpiece": (lambda d: d["model"].update(type="WordPiece"), "is WordPiece after ByteLevel"),
    "byte fallback": (lambda d: d["model"].update(byte_fallback=True), "Puna reads the byte-level BPE"),
    "no split": (lambda d: d.update(pre_tokenizer=None), "Puna reads the byte-level BPE"),
    "metaspace": (lambda d: d.update(pre_tokenizer={"type": "Metaspace"}), "is BPE after Metaspace"),
    "gpt-2": (lambda d: d.update(pre_tokenizer=d["pre_tokenizer"]["pretokenizers"][1]), "another rule"),
    "other expression": (
        lambda d: d["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": r"\s+"}),
        "another rule",
    ),
    "literal": (lambda d: d["pre_tokenizer"]["pretokenizers"][0].update(pattern={"String": " "}), "another rule"),
    "inverted": (lambda d: d["pre_tokenizer"]["pretokenizers"][0].update(invert=True), "another rule"),
    "prefix space": (
        lambda d: d["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
        "another rule",
    ),
    "normalizer": (lambda d: d.update(normalizer={"type": "NFC"}), "changes the text"),
    "merging whole pieces": (lambda d: d["model"].update(ignore_merges=False), "ignore_merges is not true"),
    "merges in another order": (_other_order, "another order"),
    "fewer merges": (_one_merge_for_each_token, "merges, and its tokens can be merged in"),
    "no model": (lambda d: d.pop("model"), "lacks 'model'"),
    "no merges": (lambda d: d["model"].pop("merges"), "lacks 'merges'"),
    "a list": (lambda d: d.update(model=[]), "does not have its form"),
    "a letter of no byte": (lambda d: d["model"]["vocab"].update({"\u4e2d": 5000}), "lacks '\u4e2d'"),
    "a rank twice": (lambda d: d["model"]["vocab"].update({"ĠĠĠĠĠĠĠĠĠĠĠĠĠ!": 300}), "two tokens"),
    "a gap": (lambda d: d["model"]["vocab"].update({"ĠĠĠĠĠĠĠĠĠĠĠĠĠ!": 5000}), "none of rank"),
    "no special tokens": (lambda d: d.update(added_tokens=[]), "0 special tokens"),
    "special tokens elsewhere": (lambda d: d["added_tokens"][0].update(id=9999), "ids from"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_tokenizers_of_other_kinds_are_refused(content: dict[str, Any], tmp_path: Path, name: str) -> None:
    change, message = CHANGES[name]
    content = copy.deepcopy(content)
    change(content)
    with pytest.raises(TokenizerError, match=message) as caught:
        read_tokenizer_json(write(tmp_path / "tokenizer.json", content))
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"model": 1}', "\udcff{}"])
def test_damaged_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(TokenizerError):
        read_tokenizer_json(path)


def test_merges_are_all_splits_by_rank_of_whole_left_and_right() -> None:
    ranks = {b"a": 0, b"b": 1, b"ab": 2, b"ba": 3, b"aba": 4}
    assert merges(ranks) == [("a", "b"), ("b", "a"), ("a", "ba"), ("ab", "a")]


def test_the_bytes_stand_in_llamas_order(llama: Tokenizer) -> None:
    assert [llama.ranks[bytes([byte])] for byte in byte_order()] == list(range(256))


@given(text=st.text(max_size=80) | st.text(alphabet="ab \n'1é中", max_size=200))
@settings(max_examples=200)
def test_tokenizers_gives_the_same_ids(small: Tokenizer, hugging_face: tokenizers.Tokenizer, text: str) -> None:
    encoding = hugging_face.encode(text, add_special_tokens=False)
    assert encoding.ids == small.encode(text)
    assert hugging_face.decode(encoding.ids, skip_special_tokens=False) == text


def test_tokenizers_gives_the_same_ids_for_long_runs(small: Tokenizer, hugging_face: tokenizers.Tokenizer) -> None:
    for text in (" " * 1_000_001 + "a", "\n" * 100_000 + " " * 600 + "1", "ab" * 50_000):
        assert hugging_face.encode(text, add_special_tokens=False).ids == small.encode(text)


def test_tokenizers_reads_special_tokens_and_adds_the_start(
    small: Tokenizer, hugging_face: tokenizers.Tokenizer
) -> None:
    text = "a<|eot_id|> b<|reserved_special_token_7|>"
    assert hugging_face.encode(text).ids == small.encode(text, bos=True, allow_special=True)
    pair = hugging_face.encode("a", "b").ids
    assert pair == [*small.encode("a", bos=True), *small.encode("b", bos=True)]
