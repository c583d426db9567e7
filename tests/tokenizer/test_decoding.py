from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from puna.tokenizer import IncrementalDecoder, Tokenizer

TEXT = "aé€😀 👩‍👩‍👧 नमस्ते 안녕"


@given(data=st.data(), skip_special=st.booleans())
def test_the_pieces_together_are_the_whole(small: Tokenizer, data: st.DataObject, skip_special: bool) -> None:
    ids = data.draw(st.lists(st.integers(0, small.vocab_size - 1) | st.integers(128, 255), max_size=30))
    decoder = IncrementalDecoder(small, skip_special)
    text = "".join([decoder.feed(id) for id in ids]) + decoder.finish()
    assert text == small.decode(ids, skip_special)


@given(text=st.text(max_size=30))
def test_no_half_of_a_character_comes_out(small: Tokenizer, text: str) -> None:
    decoder = small.decoder()
    single_bytes = [small.ranks[bytes([byte])] for byte in text.encode()]
    pieces = [decoder.feed(id) for id in single_bytes]
    assert "".join(pieces) == text
    assert all(len(piece) <= 1 for piece in pieces)
    assert decoder.finish() == ""


def test_a_character_comes_out_with_its_last_byte(small: Tokenizer) -> None:
    decoder = small.decoder()
    assert [decoder.feed(small.ranks[bytes([byte])]) for byte in "€".encode()] == ["", "", "€"]


def test_several_ids_may_come_at_once(small: Tokenizer) -> None:
    ids = small.encode(TEXT)
    decoder = small.decoder()
    assert decoder.feed(ids[:5]) + decoder.feed(iter(ids[5:])) + decoder.finish() == TEXT


def test_an_unfinished_character_is_replaced_at_the_end_and_the_decoder_begins_anew(small: Tokenizer) -> None:
    decoder = small.decoder()
    assert decoder.feed(small.ranks[b"\xe2"]) == ""
    assert decoder.finish() == "\ufffd"
    assert decoder.feed(small.encode("a")) == "a"
    assert decoder.finish() == ""


def test_special_tokens_appear_or_not(small: Tokenizer) -> None:
    ids = [*small.encode("a"), small.eot_id, *small.encode("b")]
    assert small.decoder().feed(ids) == "a<|eot_id|>b"
    assert small.decoder(skip_special=True).feed(ids) == "ab"
