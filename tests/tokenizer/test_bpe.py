from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.base.errors import InputError, TokenizerError
from puna.tokenizer import Tokenizer, bpe
from puna.tokenizer.bpe import META_PATTERN, ByteLevelBPE, without_surrogates

NASTY = st.text(
    alphabet=st.one_of(
        st.sampled_from(
            " \t\n\r\v\f\u00a0\u1680\u2028\u3000\u0085'sStTrReEmMlLdDvVſ019٣Ⅷ²aZéя中あ한ก्\u0301!.,_-—😀\x00\ufeff"
        ),
        st.characters(),
    ),
    max_size=60,
)
BLANKS = st.lists(
    st.tuples(st.sampled_from([" ", "\t", "\n", "\r\n", "\u3000", " \n", "\u00a0\t"]), st.integers(0, 600)), max_size=4
)


def all_characters() -> str:
    return "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)


def test_the_ids_of_llama_3(llama: Tokenizer) -> None:
    golden = {
        "This is a test sentence.": [2028, 374, 264, 1296, 11914, 13],
        "user": [882],
        "system": [9125],
        "assistant": [78191],
        "\n\n": [271],
        "ipython": [23799, 4690],
        "safe": [19193],
        "unsafe": [39257],
        "\n\nunsafe\nS1": [271, 39257, 198, 50, 16],
    }
    assert {text: llama.encode(text) for text in golden} == golden
    assert llama.vocab_size == len(llama) == 128_256
    assert llama.encode("user", bos=True, eos=True) == [128_000, 882, 128_001]
    assert (llama.bos_id, llama.eos_id, llama.pad_id) == (128_000, 128_001, 128_004)
    assert (llama.start_header_id, llama.end_header_id, llama.python_tag_id) == (128_006, 128_007, 128_010)
    assert llama.stop_ids == (llama.eos_id, llama.eom_id, llama.eot_id) == (128_001, 128_008, 128_009)


def test_every_token_of_llama_3_is_its_own_encoding_where_it_is_one_piece(llama: Tokenizer) -> None:
    """The whole-piece rule: 588 tokens cannot be reached by merging."""
    for token, rank in llama.ranks.items():
        text = token.decode("utf-8", errors="replace")
        if text.isalpha() and "\ufffd" not in text:
            assert llama.encode(text) == [rank]


def test_texts_of_seventy_languages(
    llama: Tokenizer, llama_reference: tiktoken.Encoding, declarations: list[str]
) -> None:
    for text in declarations:
        ids = llama.encode(text)
        assert ids == llama_reference.encode(text, disallowed_special=())
        assert llama.decode(ids) == text


@given(text=NASTY)
@settings(max_examples=250)
def test_random_unicode_splits_as_metas_expression(
    small: Tokenizer, small_reference: tiktoken.Encoding, text: str
) -> None:
    assert small.encode(text) == small_reference.encode(text, disallowed_special=())
    assert small.decode(small.encode(text)) == without_surrogates(text)


@given(
    blanks=BLANKS, before=st.sampled_from(["", "a", "1", "!", "'s"]), after=st.sampled_from(["", "a", "1", "!", "\n"])
)
@settings(max_examples=200)
def test_runs_of_blanks_split_as_metas_expression(
    small: Tokenizer, small_reference: tiktoken.Encoding, blanks: list[tuple[str, int]], before: str, after: str
) -> None:
    text = before + "".join(blank * count for blank, count in blanks) + after
    assert small.encode(text) == small_reference.encode(text, disallowed_special=())


@pytest.mark.parametrize("count", [1, 2, 3, *range(254, 262), *range(510, 518), 25_001, 300_000])
@pytest.mark.parametrize("after", ["", "a", "1", "\n", "\na"])
def test_the_borders_of_the_long_run_rule(
    small: Tokenizer, small_reference: tiktoken.Encoding, count: int, after: str
) -> None:
    text = " " * count + after
    assert small.encode(text) == small_reference.encode(text, disallowed_special=())


def test_every_character_in_every_neighbourhood(small: Tokenizer, small_reference: tiktoken.Encoding) -> None:
    characters = all_characters()
    for between in ("", "  "):
        text = between.join(characters) if between else characters
        assert small.encode(text) == small_reference.encode(text, disallowed_special=())


@pytest.mark.parametrize(
    "text", ["a" * 400_000, "\n" * 400_000 + "x", "!" * 300_000, "1" * 400_000, " \n" * 200_000, "é" * 300_000]
)
def test_long_runs_of_other_kinds(small: Tokenizer, small_reference: tiktoken.Encoding, text: str) -> None:
    assert small.encode(text) == small_reference.encode(text, disallowed_special=())


def test_runs_that_metas_expression_gives_up_on_split_by_the_same_rule(
    small: Tokenizer, small_reference: tiktoken.Encoding
) -> None:
    """n blanks before other text are pieces of n - 1 and 1, at a million as at ten."""
    text = " " * 1_000_001 + "1"
    with pytest.raises(ValueError, match="stack"):
        small_reference.encode_to_numpy(text, disallowed_special=())
    expected = small_reference._encode_single_piece(" " * 1_000_000) + small.encode(" ") + small.encode("1")
    assert small.encode(text) == expected
    assert small.encode_numpy(text).tolist() == expected
    assert small.encode(text, allow_special=True) == expected


def metas_slices(text: str, chars: int, run: int) -> list[str]:
    """Slices of `chars`, cut again wherever `run` characters in a row were all blank or all not."""
    parts = []
    for start in range(0, len(text), chars):
        piece = text[start : start + chars]
        cuts, length = [0], 1
        for at, (previous, char) in enumerate(pairwise(piece), 1):
            length = length + 1 if previous.isspace() == char.isspace() else 1
            if length > run:
                cuts.append(at)
                length = 1
        parts += [piece[a:b] for a, b in pairwise([*cuts, len(piece)])]
    return parts


def test_an_engine_that_gives_up_is_answered_with_metas_slices(
    small: Tokenizer, small_reference: tiktoken.Encoding
) -> None:
    fragile = ByteLevelBPE(small.ranks, small.special, pattern=META_PATTERN)
    text = "x" * 30_000 + " " * 1_000_001 + "1"
    parts = metas_slices(text, 400_000, 25_000)
    expected = [id for part in parts for id in small_reference.encode(part, disallowed_special=())]
    assert fragile.encode(text) == expected
    assert fragile.encode(text, allow_special=True) == expected
    assert fragile.encode_numpy(text).tolist() == expected
    assert fragile.decode(expected) == text


@given(text=st.text(alphabet="ab \n\u3000\x1c", max_size=60))
def test_slices_are_metas(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "_SLICE_CHARS", 20)
        patch.setattr(bpe, "_RUN_CHARS", 3)
        assert list(bpe.slices(text)) == metas_slices(text, 20, 3)


def test_names_of_special_tokens_in_a_text_are_text(small: Tokenizer) -> None:
    for name, id in small.special.items():
        ids = small.encode(f"a{name}b{name}")
        assert max(ids) < small.base_size
        assert small.decode(ids) == f"a{name}b{name}"
        assert small.encode(f"a{name}b", allow_special=True) == [*small.encode("a"), id, *small.encode("b")]
        assert max(small.encode_numpy(name)) < small.base_size


@given(text=NASTY, bos=st.booleans(), eos=st.booleans())
def test_the_array_holds_the_ids_of_the_list(small: Tokenizer, text: str, bos: bool, eos: bool) -> None:
    array = small.encode_numpy(text, bos, eos)
    assert array.dtype == np.int32
    assert array.flags.writeable
    assert array.tolist() == small.encode(text, bos, eos)


@pytest.mark.parametrize("chars", [5, 5_000])
@pytest.mark.parametrize("threads", [None, 1, 3])
def test_a_batch_is_each_text_by_itself(small: Tokenizer, chars: int, threads: int | None) -> None:
    texts = [chr(97 + number % 26) * chars + " x\n" * (number % 7) for number in range(200)]
    assert small.encode_batch(iter(texts), bos=True, threads=threads) == [
        small.encode(text, bos=True) for text in texts
    ]
    assert small.encode_batch([], threads=threads) == []


def test_surrogates_are_joined_or_replaced(small: Tokenizer) -> None:
    assert small.encode("a\ud83d\ude00b") == small.encode("a😀b")
    assert small.decode(small.encode("a\ud800b\udc00")) == "a\ufffdb\ufffd"
    for text in ("a\ud83d\ude00b", "\ud800", "\udc00\ud800"):
        assert small.encode_numpy(text).tolist() == small.encode(text) == small.encode(text, allow_special=True)


def test_decoding_takes_any_sequence_and_refuses_unknown_ids(small: Tokenizer) -> None:
    ids = small.encode("Ünïcödé 👋🏽", bos=True, eos=True)
    assert small.decode(np.array(ids)) == small.decode(iter(ids)) == "<|begin_of_text|>Ünïcödé 👋🏽<|end_of_text|>"
    assert small.decode(ids, skip_special=True) == "Ünïcödé 👋🏽"
    assert small.decode([]) == ""
    assert small.decode([small.ranks[b"\xf0"]]) == "\ufffd"
    assert small.decode_bytes([small.ranks[b"\xf0"]]) == b"\xf0"
    for id in (small.vocab_size, -1, 2**40):
        with pytest.raises(InputError, match=f"{id} is no id"):
            small.decode([0, id])


def test_single_tokens(small: Tokenizer) -> None:
    assert [small.token_bytes(rank) for rank in small.ranks.values()] == list(small.ranks)
    assert small.token_bytes(small.eot_id) == b"<|eot_id|>"
    assert small.special_name(small.eot_id) == "<|eot_id|>"
    assert small.is_special(small.base_size)
    assert not small.is_special(small.base_size - 1)
    for id in (0, small.vocab_size, -1):
        with pytest.raises(InputError, match="no special token"):
            small.special_name(id)


def test_copies_are_equal_and_work(small: Tokenizer) -> None:
    for other in (pickle.loads(pickle.dumps(small)), copy.deepcopy(small)):
        assert type(other) is Tokenizer
        assert other == small
        assert hash(other) == hash(small)
        assert other.encode("def f(x):\n    return x") == small.encode("def f(x):\n    return x")
    assert small != ByteLevelBPE(small.ranks, dict(zip(map(str, range(256)), small.special.values(), strict=True)))
    assert small != "a tokenizer"


BYTES = {bytes([byte]): byte for byte in range(256)}


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ({}, "no token for 256"),
        ({b"a": 0}, "no token for 255"),
        (BYTES | {b"ab": 257}, "none of rank 256"),
        (BYTES | {b"ab": 255}, "two tokens"),
        ({token: rank for token, rank in BYTES.items() if rank < 200}, "no token for 56"),
        (BYTES | {b"ab": -1}, "none of rank 256"),
    ],
)
def test_ranks_that_cannot_encode_are_refused(ranks: dict[bytes, int], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        ByteLevelBPE(ranks)


@pytest.mark.parametrize(
    ("special", "message"),
    [({}, "0 special tokens"), ({"<a>": 256}, "1 special tokens"), ({"<a>": 300}, "ids from 256 on")],
)
def test_special_tokens_that_leave_gaps_are_refused(special: dict[str, int], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        ByteLevelBPE(BYTES, special)


def test_what_is_no_text_is_a_type_error(small: Tokenizer) -> None:
    with pytest.raises(TypeError):
        small.encode(b"bytes")  # type: ignore[arg-type]
