"""What the OpenAPI document says of requests beyond their models: forms of free objects, and rules between fields.

Routes read free objects (messages, tools, rows) themselves and name the place of a fault. `FORMS` describes those that
are taken, for fields of the models; `RULES` says by operation and field what a schema cannot: a refusal of a body that
the document's schemas allow names a field that stands here.
"""

from __future__ import annotations

from puna.stack.wire.items import TEXT, Schema, listed, one, table

_SOME: Schema = {"type": "string", "minLength": 1}
_MAP: Schema = {"type": "object"}
_NULL: Schema = {"type": "null"}


def _any(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _each(value: Schema) -> Schema:
    return {"type": "object", "additionalProperties": value}


_PART = table({"type": one("text", "input_text", "output_text"), "text": TEXT})
_CONTENT = _any(TEXT, listed(_PART))
_FUNCTION_CALL = table({"name": _SOME, "arguments": {"type": "string", "contentMediaType": "application/json"}})
_CALL = table({"id": _SOME, "type": one("function"), "function": _FUNCTION_CALL})
_ANSWER = table({"role": one("assistant"), "content": _CONTENT}, {"tool_calls": _any(listed(_CALL), _NULL)})
_ANSWER["properties"]["refusal"] = _any(TEXT, _NULL)
_CALLING = table({"role": one("assistant"), "tool_calls": listed(_CALL, minItems=1)})
_CALLING["properties"] |= {"content": _any(_CONTENT, _NULL), "refusal": _any(TEXT, _NULL)}
_USER = table({"role": one("system", "developer", "user"), "content": _CONTENT})
_TOOL_SAYS = table({"role": one("tool"), "tool_call_id": _SOME, "content": _CONTENT})
CHAT_MESSAGES = listed(_any(_USER, _ANSWER, _CALLING, _TOOL_SAYS), minItems=1)
_NAME: Schema = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}
_FUNCTION = table({"name": _NAME}, {"description": _any(TEXT, _NULL), "parameters": _any(_MAP, _NULL)})
CHAT_TOOLS = listed(table({"type": one("function"), "function": _FUNCTION}))
_NAMED = table({"type": one("function"), "function": table({"name": _NAME})})
_ALLOWED = table({"mode": one("auto", "required"), "tools": listed(_NAMED, minItems=1)})
CHAT_CHOICE = _any(
    one("none", "auto", "required"), _NAMED, table({"type": one("allowed_tools"), "allowed_tools": _ALLOWED})
)
_SCHEMA_FORM = table({"type": one("json_schema"), "json_schema": table({"name": TEXT, "schema": _MAP})})
CHAT_FORMAT = _any(table({"type": one("text", "json_object")}), _SCHEMA_FORM)
STRUCTURED = {
    "oneOf": [
        table({"json": _MAP}),
        table({"regex": {"type": "string", "format": "regex"}}),
        table({"choice": listed(_SOME, minItems=1)}),
        table({"grammar": _SOME}),
    ]
}
_BIAS: Schema = {
    "type": "object",
    "propertyNames": {"pattern": "^[0-9]{1,6}$"},
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
}
_WHOLE = {"type": "integer", "minimum": 1}
_USAGE_ONLY = table({}, {"include_usage": _any({"type": "boolean"}, _NULL)})
_LLAMA_PART = table({"type": one("text"), "text": TEXT})
_LLAMA_CONTENT = _any(TEXT, _LLAMA_PART, listed(_any(TEXT, _LLAMA_PART)))
_LLAMA_CALL = table({"call_id": TEXT, "tool_name": _SOME, "arguments": _MAP})
LLAMA_MESSAGE = table({"role": one("user", "system", "assistant", "tool"), "content": _LLAMA_CONTENT})
LLAMA_MESSAGE["properties"] |= {
    "context": _any(_LLAMA_CONTENT, _NULL),
    "tool_calls": _any(listed(_LLAMA_CALL), _NULL),
}
_USERS_MESSAGE = table({"role": one("user"), "content": _LLAMA_CONTENT}, {"context": _any(_LLAMA_CONTENT, _NULL)})
_TOOLS_RESULT = table({"call_id": TEXT, "tool_name": TEXT, "content": _LLAMA_CONTENT})
_STRATEGY = _any(
    table({"type": one("greedy")}),
    table({"type": one("top_p")}, {"temperature": {"type": "number", "minimum": 0, "maximum": 2}}),
)
_SAMPLING = table({}, {"strategy": _STRATEGY, "max_tokens": {"type": "integer", "minimum": 0}, "stop": listed(TEXT)})
_CLIENT_TOOL = table({"name": _NAME}, {"description": TEXT, "parameters": _any(_MAP, _NULL), "input_schema": _MAP})
_DIALOG = listed(_USERS_MESSAGE, minItems=1)
_KEPT_MESSAGE = table({"role": one("system", "user", "assistant"), "content": TEXT})
_KEPT_ANSWER = table({"role": one("assistant"), "content": TEXT})
_PATTERNS = _each(_any({"type": "string", "format": "regex"}, listed({"type": "string", "format": "regex"})))
_SOME_PART = table({"type": one("text"), "text": _SOME})
_URL: Schema = {"type": "string", "pattern": "^https?://"}
_CONVERSATION_ID: Schema = {"type": "string", "pattern": "^conv_"}
_CONVERSATION = _any(_CONVERSATION_ID, table({"id": _CONVERSATION_ID}), _NULL)
_BATCHED = ("chat/completions", "completions", "embeddings", "responses", "moderations")
_TEXT_INPUT = _any(TEXT, listed(TEXT, minItems=1, maxItems=2048))

# Model of a body -> its fields' forms; null stays allowed where the model allows it.
FORMS: dict[str, dict[str, Schema]] = {
    "ChatRequest": {
        "messages": CHAT_MESSAGES,
        "tools": CHAT_TOOLS,
        "tool_choice": CHAT_CHOICE,
        "response_format": CHAT_FORMAT,
        "structured_outputs": STRUCTURED,
        "logit_bias": _BIAS,
        "max_tokens": _WHOLE,
        "max_completion_tokens": _WHOLE,
        "functions": _NULL,
    },
    "CompletionRequest": {
        "prompt": _any(TEXT, listed(TEXT, minItems=1, maxItems=128), listed(_WHOLE | {"minimum": 0}, minItems=1)),
        "structured_outputs": STRUCTURED,
        "logit_bias": _BIAS,
        "suffix": _any({"const": ""}, _NULL),
    },
    "TokenizeRequest": {"messages": CHAT_MESSAGES, "tools": CHAT_TOOLS},
    "DetokenizeRequest": {"tokens": listed({"type": "integer", "minimum": 0})},
    "EmbeddingRequest": {"input": _TEXT_INPUT},
    "RerankRequest": {"documents": listed(_any(TEXT, table({"text": TEXT})), minItems=1)},
    "InferenceRerankRequest": {"query": _any(TEXT, _LLAMA_PART), "items": listed(_any(TEXT, _LLAMA_PART), minItems=1)},
    "ExplainRequest": {"messages": CHAT_MESSAGES, "tools": CHAT_TOOLS, "provider": _MAP},
    "ModerationBody": {"input": _any(TEXT, listed(TEXT, minItems=1), listed(_PART, minItems=1))},
    "RunShieldBody": {"messages": listed(LLAMA_MESSAGE, minItems=1)},
    "ShieldBody": {
        "provider_id": one("regex", "llama-guard"),
        "params": table({}, {"patterns": _PATTERNS, "message": TEXT, "ignore_case": {"type": "boolean"}}),
    },
    "AgentConfig": {
        "client_tools": listed(_CLIENT_TOOL),
        "sampling_params": _SAMPLING,
        "response_format": table({"type": one("json_schema"), "json_schema": _MAP}),
    },
    "TurnBody": {"messages": listed(_USERS_MESSAGE, minItems=1), "documents": listed(table({"content": TEXT}))},
    "ResumeBody": {"tool_responses": _any(listed(_TOOLS_RESULT), _each(_TOOLS_RESULT))},
    "GenerateBody": {
        "dialogs": listed(_any(_DIALOG, table({"messages": _DIALOG})), minItems=1),
        "filtering_function": one("none", "random", "top_k", "top_p", "top_k_top_p", "sigmoid"),
    },
    "Rating": {"prompt": listed(_KEPT_MESSAGE, minItems=1), "answer": _KEPT_ANSWER},
    "Pair": {"prompt": listed(_KEPT_MESSAGE, minItems=1), "chosen": _KEPT_ANSWER, "rejected": _KEPT_ANSWER},
    "CreateResponse": {
        "guardrails": _any({"type": "boolean"}, listed(_SOME), _NULL),
        "prompt": table({"id": _SOME}, {"variables": _each(TEXT), "version": TEXT}),
        "shields": table({}, {"input": listed(_SOME), "output": listed(_SOME)}),
        "conversation": _CONVERSATION,
    },
    "Compact": {"conversation": _CONVERSATION},
    "CreateBatch": {"endpoint": one(*(f"/v1/{name}" for name in _BATCHED))},
    "ConnectorBody": {"connector_id": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"}, "url": _URL},
    "McpEndpoint": {"uri": _URL},
    "Source": {"uri": _any(TEXT, _NULL), "rows": _any(listed(_MAP), _NULL)},
    "FinetuneBody": {"job_uuid": {"type": "string", "minLength": 1, "maxLength": 200}, "checkpoint_dir": _NULL},
    "Turn": {"role": one("user", "assistant")},
    "ToolGroupBody": {"provider_id": one("builtin::basics", "builtin::rag", "builtin::file_search")},
    "Chunk": {"content": _any(_SOME, listed(_SOME_PART, minItems=1))},
    "Body_create_file_v1_files_post": {
        "purpose": one("assistants", "batch", "fine-tune", "vision", "user_data", "evals"),
        "expires_after": {"type": "string"},
        "expires_after[anchor]": one("created_at"),
        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
    },
    "RagQueryBody": {"content": _any(_SOME, table({"type": one("text"), "text": _SOME}))},
    "QueryChunks": {"query": _any(_SOME, listed(_SOME, minItems=1))},
    "SearchBody": {"query": _any(_SOME, listed(_SOME, minItems=1))},
}

# Parameters of queries, by their names.
PARAMETERS: dict[str, Schema] = {
    "authorization": {"type": "string", "pattern": "^[!-~]{1,4096}$"},
    "mcp_endpoint": _URL,
}

_STAYS = "what is built in stays"
_ADDRESS = "can be read as an address, and is none of this server's network"
_STREAMED = {"stream_options": "needs stream: true", "stream": "needs what it streams to be at hand"}
_TOOLS = {
    "messages": "arguments of calls are JSON objects in a text; a tool's message answers a call before it",
    "tools": "no two have one name, and parameters are a JSON schema that a grammar can be made of",
    "tool_choice": "required needs tools, and whoever is named is on offer",
}
_ANSWERED = {
    **_STREAMED,
    "structured_outputs": "beside response_format only one of both; a grammar can be made of it",
    "response_format": "a grammar can be made of the schema",
    "top_logprobs": "needs logprobs: true",
    "logit_bias": "holds ids of the model's vocabulary",
    "stop": "at most 16 texts",
}
_ITEMS = {
    "input": "there is something to answer; items that are referred to are there; outputs answer calls before them",
    "items": "ids are new to the conversation; arguments are JSON objects in a text",
    "conversation": "not beside previous_response_id",
    "previous_response_id": "names a response that has ended well; not beside conversation",
}
_CHUNKS = {
    "chunking_strategy": "chunk_overlap_tokens is at most half of max_chunk_size_tokens",
    "files": "chunking_strategy: chunk_overlap_tokens is at most half of max_chunk_size_tokens",
    "file_ids": "one of file_ids and files has a file",
}
_ONE_SIDE = {"before": "not beside after"}
_ROWS = {
    "input_rows": "a row has the columns that the functions and the benchmark read",
    "scoring_functions": "have the parameters that their kind takes",
    "judge_model": "a judge has one",
    "parsing_regexes": "are regular expressions",
    "judge_score_regexes": "are regular expressions",
    "aggregation_functions": "are names of aggregations",
    "prompt_template": "is a text",
}
_TURNS = {
    "messages": "the last is the user's",
    "documents": "their types can be read here",
    "toolgroups": "their arguments are those that they take",
    "tool_responses": "answer the calls that the turn waits for, each once",
}
# Method and path as in `wire.answers` -> field -> what it has to be beside its schema. "-" stands for no field.
RULES: dict[str, dict[str, str]] = {
    "POST /chat/completions": {**_TOOLS, **_ANSWERED},
    "POST /completions": {**_ANSWERED, "best_of": "at least n, and not streamed", "max_tokens": "0 needs echo"},
    "POST /responses": {
        **_TOOLS,
        **_ITEMS,
        "store": "a response in the background is stored",
        "text.format": "a grammar can be made of the schema",
        "include": "names what can be included",
        "prompt": "has the variables that the kept prompt names",
        "top_logprobs": "needs include: message.output_text.logprobs",
        "guardrails": "there is a shield",
        "shields": "there are shields of these names",
        "stream_options": _STREAMED["stream_options"],
        "truncation": "without auto, everything fits into the model's context",
    },
    "POST /responses/compact": _ITEMS,
    "GET /responses/{response_id}": {"stream": _STREAMED["stream"]},
    "POST /responses/{response_id}/cancel": {"response_id": "is in the background"},
    "POST /conversations": _ITEMS,
    "POST /conversations/{conversation_id}/items": _ITEMS,
    "POST /embeddings": {"dimensions": "at most what the model's vectors have"},
    "POST /tokenize": {**_TOOLS, "content": "one of content, prompt and messages is given"},
    "POST /detokenize": {"tokens": "are ids of the model's vocabulary"},
    "POST /infill": {"input_extra": "each has filename and text", "model": "was trained to infill"},
    "POST /batches": {"input_file_id": "names a file of the purpose batch"},
    "POST /files": {"expires_after": "is JSON with anchor and seconds, or both stand in fields of their own"},
    "POST /vector_stores": _CHUNKS,
    "POST /vector_stores/{vector_store_id}/files": _CHUNKS,
    "POST /vector_stores/{vector_store_id}/file_batches": _CHUNKS,
    "POST /vector_stores/{vector_store_id}/search": {
        "filters": "in and nin compare with a list, the others with one value; at most 60 deep"
    },
    "GET /vector_stores/{vector_store_id}/files": _ONE_SIDE,
    "GET /vector_stores/{vector_store_id}/file_batches/{batch_id}/files": _ONE_SIDE,
    "GET /vector_stores/{vector_store_id}/files/{file_id}/content": {"-": "the file has been read"},
    "POST /vector-io/insert": {"vector_store_id": "one of both names is given", "chunks": "ids are this store's own"},
    "POST /vector-io/query": {"vector_store_id": "one of both names is given", "params": "as in a search"},
    "POST /prompts": {"variables": "are exactly those of the prompt, each named once as a word"},
    "PUT /prompts/{prompt_id}": {"variables": "are exactly those of the prompt", "version": "is the newest"},
    "POST /prompts/{prompt_id}": {"variables": "are exactly those of the prompt", "version": "is the newest"},
    "POST /datasets": {
        "source": "has either a uri or rows; rows can be read from it",
        "-": "dataset_id names nothing that is built in, and is printable",
    },
    "POST /shields": {
        "provider_id": "is given, unless shield_id tells the kind",
        "params": "a regex shield has patterns",
        "-": "the name is printable",
    },
    "POST /moderations": {"input": "holds something"},
    "DELETE /toolgroups/{toolgroup_id}": {"-": _STAYS},
    "POST /toolgroups": {
        "provider_id": "is given where there is no mcp_endpoint",
        "mcp_endpoint": _ADDRESS,
        "args": "are those that the group takes",
        "-": "the name is printable and not built in",
    },
    "POST /tool-runtime/invoke": {"kwargs": "are those that the tool takes"},
    "GET /tool-runtime/list-tools": {"mcp_endpoint": _ADDRESS},
    "POST /tool-runtime/rag-tool/query": {"vector_db_ids": "are there", "query_config": "as in a search"},
    "POST /connectors": {"url": _ADDRESS},
    "DELETE /scoring-functions/{identifier}": {"-": _STAYS},
    "POST /scoring-functions": {
        **_ROWS,
        "provider_scoring_fn_id": "names a function that is built in",
        "-": "the name is printable and not built in",
    },
    "POST /scoring/score": _ROWS,
    "POST /scoring/score-batch": _ROWS,
    "POST /eval/benchmarks": {"-": "the name is printable", **_ROWS},
    "POST /eval/benchmarks/{benchmark_id}/evaluations": {**_ROWS, "benchmark_config": "as in an agent", **_TURNS},
    "POST /eval/benchmarks/{benchmark_id}/jobs": {**_ROWS, "benchmark_config": "as in an agent"},
    "POST /post-training/supervised-fine-tune": {
        "training_config": "its dataset is there and has conversations; what this server cannot do is not asked for",
        "algorithm_config": "LoRA with modules that models have",
        "model": "is local",
        "dataset_id": "has messages, or questions and answers",
    },
    "POST /post-training/job/cancel": {"job_uuid": "is given, here or in the query"},
    "POST /synthetic-data-generation/generate": {"model": "is given where there are several"},
    "POST /agents": {
        **_TURNS,
        "client_tools": "no two have one name",
        "agent_config": "its toolgroups and shields are there",
        "sampling_params": "are numbers within their bounds",
    },
    "POST /agents/{agent_id}/session/{session_id}/turn": _TURNS,
    "POST /agents/{agent_id}/session/{session_id}/turn/{turn_id}/resume": _TURNS,
    "POST /feedback": {"prompt": "holds messages", "rejected": "differs from chosen"},
    "POST /routing/explain": {
        **_TOOLS,
        "prompt_tokens": "is given where there are no messages",
        "price_list": "names a model of the price file, and is given where the server has no router",
        "route": "is one of the server's",
        "needs": "are names of features",
        "provider": "is OpenRouter's object",
        "-": _TOOLS["messages"],
    },
}
