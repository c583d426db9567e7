"""JSON schemas of answers, for the OpenAPI document alone: routes build their answers as plain objects.

`ANSWERS` has one for every operation whose route does not name a model of its own. Objects may have further fields;
those listed first are always there. Nothing of this is loaded before somebody asks for the document.
"""

from __future__ import annotations

from puna.stack.wire.items import TEXT, Schema, listed, one, table

_INT: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_BOOL: Schema = {"type": "boolean"}
_MAP: Schema = {"type": "object"}
_TEXTS = listed(TEXT)


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _of(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _page(item: Schema, **more: Schema) -> Schema:
    """A page in OpenAI's form."""
    ends = {"first_id": _or_null(TEXT), "last_id": _or_null(TEXT)}
    return table({"object": one("list"), "data": listed(item), **ends, "has_more": _BOOL, **more})


def _llama_page(item: Schema) -> Schema:
    """A page in Llama Stack's form."""
    return table({"data": listed(item), "has_more": _BOOL, "url": _or_null(TEXT)}, {"object": one("list")})


def _resource(type: str, **more: Schema) -> Schema:
    ids = dict.fromkeys(("identifier", "provider_id", "provider_resource_id"), TEXT)
    return table({**ids, "type": one(type), **more})


def _deleted(object: str) -> Schema:
    return table({"id": TEXT, "object": one(object), "deleted": _BOOL})


_LOGPROB = table({"token": TEXT, "logprob": _NUMBER, "bytes": listed(_INT)})
_TOKEN = table({**_LOGPROB["properties"], "top_logprobs": listed(_LOGPROB)})
_DETAILS = {"prompt_tokens_details": _MAP, "completion_tokens_details": _MAP}
_COUNTS = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), _INT)
_USAGE = table({**_COUNTS, **_DETAILS}, {"cost": _NUMBER})
_CALL = table(
    {"id": TEXT, "type": one("function"), "function": table({"name": TEXT, "arguments": TEXT})},
)
_MESSAGE = table(
    {"role": one("assistant"), "content": _or_null(TEXT), "refusal": _or_null(TEXT)}, {"tool_calls": listed(_CALL)}
)
_CHOICE = table(
    {
        "index": _INT,
        "message": _MESSAGE,
        "logprobs": _or_null(table({"content": listed(_TOKEN)})),
        "finish_reason": one("stop", "length", "tool_calls"),
    }
)
_OLD_LOGPROBS = table(
    {
        "tokens": _TEXTS,
        "token_logprobs": listed(_or_null(_NUMBER)),
        "top_logprobs": listed(_or_null(_MAP)),
        "text_offset": listed(_INT),
    }
)
_TEXT_CHOICE = table(
    {"index": _INT, "text": TEXT, "logprobs": _or_null(_OLD_LOGPROBS), "finish_reason": one("stop", "length")}
)
_FRAME = {"id": TEXT, "created": _INT, "model": TEXT, "system_fingerprint": TEXT}
_STATES = ("queued", "in_progress", "completed", "incomplete", "failed", "cancelled")
_ITEM = table({"type": TEXT, "id": TEXT})
_RESPONSE_USAGE = table(
    {
        "input_tokens": _INT,
        "input_tokens_details": table({"cached_tokens": _INT}),
        "output_tokens": _INT,
        "output_tokens_details": table({"reasoning_tokens": _INT}),
        "total_tokens": _INT,
    }
)
_RESPONSE = table(
    {
        "id": TEXT,
        "object": one("response"),
        "created_at": _INT,
        "completed_at": _or_null(_INT),
        "status": one(*_STATES),
        "background": _BOOL,
        "error": _or_null(table({"code": TEXT, "message": TEXT})),
        "incomplete_details": _or_null(table({"reason": TEXT})),
        "instructions": _or_null(TEXT),
        "model": TEXT,
        "output": listed(_ITEM),
        "previous_response_id": _or_null(TEXT),
        "tools": listed(table({"type": TEXT})),
        "tool_choice": {"anyOf": [one("none", "auto", "required"), table({"type": TEXT})]},
        "parallel_tool_calls": _BOOL,
        "max_output_tokens": _or_null(_INT),
        "max_tool_calls": _or_null(_INT),
        "text": table({"format": table({"type": TEXT})}),
        "temperature": _NUMBER,
        "top_p": _NUMBER,
        "presence_penalty": _NUMBER,
        "frequency_penalty": _NUMBER,
        "top_logprobs": _INT,
        "reasoning": _or_null(_MAP),
        "truncation": one("auto", "disabled"),
        "store": _BOOL,
        "service_tier": TEXT,
        "metadata": _MAP,
        "safety_identifier": _or_null(TEXT),
        "prompt_cache_key": _or_null(TEXT),
        "usage": _or_null(_of("ResponseUsage")),
    }
)
_TOOL_CALL = table({"call_id": TEXT, "tool_name": TEXT, "arguments": {"anyOf": [TEXT, _MAP]}}, {"arguments_json": TEXT})
_SAID = table({"role": TEXT, "content": TEXT}, {"stop_reason": TEXT, "tool_calls": listed(_TOOL_CALL)})
_TOOL_RESPONSE = table({"call_id": TEXT, "tool_name": TEXT, "content": TEXT}, {"metadata": _or_null(_MAP)})
_STEP = table(
    {"step_id": TEXT, "turn_id": TEXT, "step_type": TEXT, "started_at": TEXT},
    {
        "completed_at": _or_null(TEXT),
        "model_response": _SAID,
        "tool_calls": listed(_TOOL_CALL),
        "tool_responses": listed(_TOOL_RESPONSE),
        "violation": _or_null(_MAP),
        "vector_db_ids": TEXT,
        "inserted_context": TEXT,
    },
)
_TURN = table(
    {
        "turn_id": TEXT,
        "session_id": TEXT,
        "input_messages": listed(_MAP),
        "steps": listed(_STEP),
        "output_message": _SAID,
        "started_at": TEXT,
        "completed_at": _or_null(TEXT),
        "output_attachments": listed(_MAP),
    }
)
_SCORES = table(
    {"score_rows": listed(table({}, {"score": _or_null(_NUMBER)})), "aggregated_results": _MAP},
)
_RESULTS = {"type": "object", "additionalProperties": _SCORES}
_JOB = table(
    {
        "id": TEXT,
        "job_id": TEXT,
        "status": one("scheduled", "in_progress", "completed", "failed", "cancelled"),
        "error": _or_null(TEXT),
        "scheduled_at": _or_null(TEXT),
        "started_at": _or_null(TEXT),
        "completed_at": _or_null(TEXT),
    }
)
_CHECKPOINT = table({"identifier": TEXT, "created_at": TEXT, "epoch": _INT, "path": TEXT})
_TRAINING = {"job_uuid": TEXT, "checkpoints": listed(_CHECKPOINT)}
_RANKED = listed(table({"index": _INT, "relevance_score": _NUMBER}))
_LISTED_TOOL = _resource(
    "tool",
    name=TEXT,
    toolgroup_id=TEXT,
    description=_or_null(TEXT),
    input_schema=_or_null(_MAP),
    parameters=listed(table({"name": TEXT, "parameter_type": TEXT})),
)
_DECISION = {"format": _INT, "facts": _MAP, "policy": _MAP, "candidates": listed(_MAP), "verdicts": listed(_MAP)}
_MODERATION = table(
    {"flagged": _BOOL, "categories": _MAP, "category_scores": _MAP, "category_applied_input_types": _MAP}
)
_DIALOG = table({"messages": listed(_MAP)})

SCHEMAS: dict[str, Schema] = {
    "ChatCompletion": table(
        {**_FRAME, "object": one("chat.completion"), "choices": listed(_CHOICE), "usage": _USAGE, "service_tier": TEXT},
        {"metadata": _MAP, "routing": _MAP, "input_messages": listed(_MAP)},
    ),
    "TextCompletion": table(
        {**_FRAME, "object": one("text_completion"), "choices": listed(_TEXT_CHOICE), "usage": _USAGE}
    ),
    "Embeddings": table(
        {
            "object": one("list"),
            "data": listed(
                table(
                    {
                        "object": one("embedding"),
                        "index": _INT,
                        "embedding": {"anyOf": [listed(_NUMBER), TEXT]},
                    }
                )
            ),
            "model": TEXT,
            "usage": table({"prompt_tokens": _INT, "total_tokens": _INT}),
        }
    ),
    "Response": _RESPONSE,
    "ResponseUsage": _RESPONSE_USAGE,
    "Item": _ITEM,
    "Compaction": table(
        {
            "id": TEXT,
            "object": one("response.compaction"),
            "created_at": _INT,
            "output": listed(_of("Item")),
            "usage": _of("ResponseUsage"),
        }
    ),
    "Conversation": table({"id": TEXT, "object": one("conversation"), "created_at": _INT, "metadata": _MAP}),
    "Prompt": table({"prompt_id": TEXT, "version": _INT, "is_default": _BOOL, "prompt": TEXT, "variables": _TEXTS}),
    "Agent": table({"agent_id": TEXT, "agent_config": _MAP, "created_at": TEXT}),
    "Session": table({"session_id": TEXT, "session_name": TEXT, "started_at": TEXT, "turns": listed(_of("AgentTurn"))}),
    "AgentTurn": _TURN,
    "Dataset": _resource(
        "dataset", purpose=TEXT, source=_MAP, metadata=_MAP, created_at=_NUMBER, row_count=_or_null(_INT)
    ),
    "Benchmark": _resource("benchmark", dataset_id=TEXT, scoring_functions=_TEXTS, metadata=_MAP),
    "EvaluationJob": _JOB,
    "Evaluation": table({"generations": listed(_MAP), "scores": _MAP}),
    "Shield": _resource("shield", params=_or_null(_MAP)),
    "Violation": table({"violation": _or_null(table({"violation_level": TEXT, "user_message": _or_null(TEXT)}))}),
    "ScoringFunction": _resource("scoring_function", return_type=_MAP),
    "ToolGroup": _resource("tool_group", args=_or_null(_MAP), mcp_endpoint=_or_null(_MAP)),
    "Tool": _LISTED_TOOL,
    "TrainingJob": table(
        {
            **_TRAINING,
            "status": _JOB["properties"]["status"],
            "scheduled_at": _or_null(TEXT),
            "started_at": _or_null(TEXT),
            "completed_at": _or_null(TEXT),
        }
    ),
    "Moderation": table({"id": TEXT, "model": TEXT, "results": listed(_MODERATION)}),
    "Decision": table({"id": TEXT, "object": one("routing.decision"), "created_at": _INT, "route": TEXT, **_DECISION}),
    "Feedback": table({"id": TEXT, "object": TEXT}),
    "SyntheticData": table({"synthetic_data": listed(_DIALOG), "statistics": _or_null(_MAP)}),
    "Tokens": table({"count": _INT, "max_model_len": _or_null(_INT)}, {"tokens": {"type": "array"}}),
}
_ITEMS = _page(_of("Item"))
# In Anthropic's form for clients that send anthropic-version.
_ANTHROPIC = table({"type": one("model"), "id": TEXT, "display_name": TEXT, "created_at": TEXT})
_MODEL = {"anyOf": [_of("Model"), _ANTHROPIC]}
_KEPT_RESPONSE = {"allOf": [_of("Response"), table({"input": listed(_of("Item"))})]}
_ID = table({"job_uuid": TEXT})

# Method and path, without its version (and without /admin) -> the body of an answer of status 200.
ANSWERS: dict[str, Schema] = {
    "POST /chat/completions": _of("ChatCompletion"),
    "GET /chat/completions": _page(_of("ChatCompletion")),
    "GET /chat/completions/{id}": _of("ChatCompletion"),
    "POST /chat/completions/{id}": _of("ChatCompletion"),
    "DELETE /chat/completions/{id}": _deleted("chat.completion.deleted"),
    "GET /chat/completions/{id}/messages": _page(table({"id": TEXT})),
    "POST /completions": _of("TextCompletion"),
    "POST /embeddings": _of("Embeddings"),
    "POST /responses": _of("Response"),
    "GET /responses": _page(_KEPT_RESPONSE),
    "GET /responses/{response_id}": _of("Response"),
    "DELETE /responses/{response_id}": _deleted("response"),
    "POST /responses/compact": _of("Compaction"),
    "POST /responses/{response_id}/cancel": _of("Response"),
    "GET /responses/{response_id}/input_items": _ITEMS,
    "GET /conversations": _page(_of("Conversation")),
    "POST /conversations": _of("Conversation"),
    "GET /conversations/{conversation_id}": _of("Conversation"),
    "POST /conversations/{conversation_id}": _of("Conversation"),
    "DELETE /conversations/{conversation_id}": _deleted("conversation.deleted"),
    "POST /conversations/{conversation_id}/items": _ITEMS,
    "GET /conversations/{conversation_id}/items": _ITEMS,
    "GET /conversations/{conversation_id}/items/{item_id}": _of("Item"),
    "DELETE /conversations/{conversation_id}/items/{item_id}": _of("Conversation"),
    "GET /prompts": _page(_of("Prompt")),
    "POST /prompts": _of("Prompt"),
    "GET /prompts/{prompt_id}": _of("Prompt"),
    "PUT /prompts/{prompt_id}": _of("Prompt"),
    "POST /prompts/{prompt_id}": _of("Prompt"),
    "GET /prompts/{prompt_id}/versions": _page(_of("Prompt")),
    "PUT /prompts/{prompt_id}/set-default-version": _of("Prompt"),
    "POST /prompts/{prompt_id}/set-default-version": _of("Prompt"),
    "POST /agents": table({"agent_id": TEXT}),
    "GET /agents": _llama_page(_of("Agent")),
    "GET /agents/{agent_id}": _of("Agent"),
    "POST /agents/{agent_id}/session": table({"session_id": TEXT}),
    "GET /agents/{agent_id}/sessions": _llama_page(_of("Session")),
    "GET /agents/{agent_id}/session/{session_id}": _of("Session"),
    "POST /agents/{agent_id}/session/{session_id}/turn": _of("AgentTurn"),
    "POST /agents/{agent_id}/session/{session_id}/turn/{turn_id}/resume": _of("AgentTurn"),
    "GET /agents/{agent_id}/session/{session_id}/turn/{turn_id}": _of("AgentTurn"),
    "GET /agents/{agent_id}/session/{session_id}/turn/{turn_id}/step/{step_id}": table({"step": _STEP}),
    "GET /datasets": _page(_of("Dataset")),
    "POST /datasets": _of("Dataset"),
    "GET /datasets/{dataset_id}": _of("Dataset"),
    "GET /datasetio/iterrows/{dataset_id}": _llama_page(_MAP),
    "GET /eval/benchmarks": _page(_of("Benchmark")),
    "POST /eval/benchmarks": _of("Benchmark"),
    "GET /eval/benchmarks/{benchmark_id}": _of("Benchmark"),
    "POST /eval/benchmarks/{benchmark_id}/evaluations": _of("Evaluation"),
    "POST /eval/benchmarks/{benchmark_id}/jobs": _of("EvaluationJob"),
    "GET /eval/benchmarks/{benchmark_id}/jobs": _page(_of("EvaluationJob")),
    "GET /eval/benchmarks/{benchmark_id}/jobs/{job_id}": _of("EvaluationJob"),
    "GET /eval/benchmarks/{benchmark_id}/jobs/{job_id}/result": _of("Evaluation"),
    "POST /post-training/supervised-fine-tune": _ID,
    "POST /post-training/preference-optimize": _ID,
    "GET /post-training/jobs": _page(table({"job_uuid": TEXT, "status": TEXT})),
    "GET /post-training/job/status": _of("TrainingJob"),
    "GET /post-training/job/artifacts": table(_TRAINING),
    "GET /post-training/job/logs": table({"job_uuid": TEXT, "log_lines": _TEXTS}),
    "POST /post-training/job/cancel": _or_null(_MAP),
    "GET /shields": _page(_of("Shield")),
    "POST /shields": _of("Shield"),
    "GET /shields/{identifier}": _of("Shield"),
    "POST /safety/run-shield": _of("Violation"),
    "POST /moderations": _of("Moderation"),
    "GET /scoring-functions": _page(_of("ScoringFunction")),
    "POST /scoring-functions": _of("ScoringFunction"),
    "GET /scoring-functions/{identifier}": _of("ScoringFunction"),
    "POST /scoring/score": table({"results": _RESULTS}),
    "POST /scoring/score-batch": table({"results": _RESULTS}, {"dataset_id": _or_null(TEXT)}),
    "POST /synthetic-data-generation/generate": _of("SyntheticData"),
    "GET /toolgroups": _page(_of("ToolGroup")),
    "POST /toolgroups": _of("ToolGroup"),
    "GET /toolgroups/{toolgroup_id}": _of("ToolGroup"),
    "GET /tools": _page(_of("Tool")),
    "GET /tools/{tool_name}": _of("Tool"),
    "GET /tool-runtime/list-tools": _page(_of("Tool")),
    "POST /tool-runtime/invoke": table(
        {"content": {"anyOf": [TEXT, listed(_MAP)]}},
        {"error_message": _or_null(TEXT), "error_code": _or_null(_INT), "metadata": _or_null(_MAP)},
    ),
    "POST /tool-runtime/rag-tool/query": table({"content": _or_null(listed(_MAP)), "metadata": _MAP}),
    "POST /tool-runtime/rag-tool/insert": _MAP,
    "GET /connectors": _page(_of("Connector")),
    "GET /connectors/{connector_id}/tools": _page(_of("ConnectorTool")),
    "GET /models": _page(_MODEL),
    "GET /models/{id}": _MODEL,
    "POST /models/{id}/unload": _of("Model"),
    "POST /models/{id}/load": _of("Model"),
    "GET /health": _of("HealthInfo"),
    "GET /version": _of("VersionInfo"),
    "GET /providers": _of("ProviderList"),
    "GET /providers/{provider_id}": _of("ProviderInfo"),
    "GET /inspect/routes": _of("RouteList"),
    "GET /reader/document": table({"source": TEXT, "text": TEXT}),
    "POST /inference/rerank": table({"data": _RANKED}),
    "POST /rerank": table({"id": TEXT, "model": TEXT, "results": _RANKED}),
    "GET /routing/decisions": _page(_of("Decision")),
    "GET /routing/decisions/{id}": _of("Decision"),
    "GET /routing/ledger": _page(table({"id": TEXT}), totals=_MAP, left_today=_MAP),
    "GET /routing/prices": _page(table({"provider": TEXT, "model": TEXT}), fingerprint=TEXT, today=TEXT),
    "POST /routing/explain": table({"object": one("routing.explanation"), **_DECISION, "order": _TEXTS}),
    "POST /tokenize": _of("Tokens"),
    "POST /detokenize": table({"content": TEXT, "prompt": TEXT}),
    "POST /infill": table({"content": TEXT, "stop": _BOOL, "model": TEXT, "stop_type": TEXT}),
    "POST /vector-io/insert": table({"vector_store_id": TEXT, "inserted": _TEXTS}),
    "POST /vector-io/query": table({"chunks": listed(table({"chunk_id": TEXT})), "scores": listed(_NUMBER)}),
    "GET /vector_stores": _page(_of("VectorStore")),
    "GET /vector_stores/{vector_store_id}/files": _page(_of("VectorStoreFile")),
    "GET /vector_stores/{vector_store_id}/file_batches/{batch_id}/files": _page(_of("VectorStoreFile")),
    "GET /vector_stores/{vector_store_id}/files/{file_id}/content": table(
        {"object": TEXT, "data": listed(table({"type": TEXT, "text": TEXT})), "has_more": _BOOL}
    ),
    "POST /feedback": _of("Feedback"),
    "GET /feedback": _page(_of("Feedback")),
    "DELETE /feedback/{id}": table({"id": TEXT, "deleted": _BOOL}),
}
# What else these answer: as events where `stream` is asked for, or in a form of their own.
STREAMED = (
    "POST /chat/completions",
    "POST /completions",
    "POST /responses",
    "GET /responses/{response_id}",
    "POST /agents/{agent_id}/session/{session_id}/turn",
    "POST /agents/{agent_id}/session/{session_id}/turn/{turn_id}/resume",
    "POST /infill",
)
FILES = {"GET /files/{file_id}/content": "application/octet-stream", "GET /feedback/export": "application/x-ndjson"}
