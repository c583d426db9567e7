"""Llama 3's tokenizer: byte-level BPE loaded or trained, its files, its chat format, and the tool calls in it.

`Tokenizer` is the whole; `ChatFormat` with a `ChatStyle` renders conversations in another style than the default.
tiktoken and tokenizers are imported when a tokenizer is made, so that importing this room is quick.
"""

from puna.tokenizer.chat import ChatFormat
from puna.tokenizer.decoding import IncrementalDecoder
from puna.tokenizer.parser import TurnParser
from puna.tokenizer.preamble import ChatStyle
from puna.tokenizer.tokenizer import Tokenizer
from puna.tokenizer.tool_calls import parse_tool_calls

__all__ = ["ChatFormat", "ChatStyle", "IncrementalDecoder", "Tokenizer", "TurnParser", "parse_tool_calls"]
