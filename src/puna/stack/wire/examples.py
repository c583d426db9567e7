"""Bodies of requests that clients begin with, for the OpenAPI document alone; by the keys of `wire.answers`."""

from __future__ import annotations

from typing import Any

_QUESTION = [{"role": "user", "content": "What does copyfile do?"}]

EXAMPLES: dict[str, dict[str, Any]] = {
    "POST /chat/completions": {"model": "tiny", "messages": _QUESTION, "max_tokens": 64},
    "POST /completions": {"model": "tiny", "prompt": "copyfile(src, dst) copies", "max_tokens": 16},
    "POST /responses": {"model": "tiny", "input": "What does copyfile do?", "max_output_tokens": 64},
    "POST /embeddings": {"model": "letters", "input": ["copyfile", "copytree"]},
    "POST /conversations": {"metadata": {"topic": "files"}},
    "POST /prompts": {"prompt": "Answer in one sentence: {{question}}", "variables": ["question"]},
    "POST /vector_stores": {"name": "manual"},
    "POST /vector_stores/{vector_store_id}/search": {"query": "copy a file", "max_num_results": 5},
    "POST /shields": {"shield_id": "words", "params": {"patterns": {"secrets": ["password"]}}},
    "POST /agents": {"agent_config": {"model": "tiny", "instructions": "Answer briefly."}},
    "POST /scoring/score": {
        "input_rows": [{"input_query": "2 + 2", "generated_answer": "4", "expected_answer": "4"}],
        "scoring_functions": {"basic::equality": None},
    },
    "POST /datasets": {
        "purpose": "eval/question-answer",
        "source": {"type": "rows", "rows": [{"input_query": "2 + 2", "expected_answer": "4"}]},
    },
    "POST /tool-runtime/invoke": {"tool_name": "calculator", "kwargs": {"expression": "2 + 2"}},
    "POST /tokenize": {"content": "copyfile"},
}
