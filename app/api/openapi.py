"""What `/docs` shows of streams."""

from __future__ import annotations

from typing import Any

STREAM_EXAMPLE = """id: 5f0c:0
event: metadata
data: {"type":"metadata","data":{"input_type":"url","style":"executive","engine":"local"}}

id: 5f0c:1
event: status
data: {"stage":"writing"}

id: 5f0c:2
data: {"title":"Rate

id: 5f0c:3
data:  cut surprises

id: 5f0c:97
event: result
data: {"summary":{"title":"Rate cut surprises"},"usage":{"total_tokens":2310}}

"""

PATCHES_EXAMPLE = """id: 5f0c:0
data: {"type":"metadata","data":{"input_type":"url","style":"executive","engine":"local"}}

id: 5f0c:1
data: {"delta":{"op":"set","field":"title","value":"Rate cut surprises"},"state":{"title":"Rate \
cut surprises","main_summary":null,"key_points":[],"category":null,"sentiment":null,\
"read_time_min":null},"done":false,"tokens_used":12}

id: 5f0c:2
data: {"delta":{"op":"done"},"state":{"title":"Rate cut surprises"},"done":true,"tokens_used":97,\
"latency_ms":8000.78}

"""

PROSE_EXAMPLE = """id: 5f0c:0
data: {"content":"The central bank","done":false,"tokens_used":3}

id: 5f0c:1
data: {"content":"","done":true,"tokens_used":58,"latency_ms":4210.5}

"""

CHAT_EXAMPLE = """id: 5f0c:0
data: {"id":"chatcmpl-1f","object":"chat.completion.chunk","created":1764000000,"model":"phi",\
"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}

id: 5f0c:1
data: {"id":"chatcmpl-1f","object":"chat.completion.chunk","created":1764000000,"model":"phi",\
"choices":[{"index":0,"delta":{"content":"Halo"},"finish_reason":null}]}

id: 5f0c:2
data: {"id":"chatcmpl-1f","object":"chat.completion.chunk","created":1764000000,"model":"phi",\
"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

data: [DONE]

"""

_CHAT_ANSWER = {
    "id": "chatcmpl-1f",
    "object": "chat.completion",
    "created": 1764000000,
    "model": "microsoft/Phi-3-mini-4k-instruct",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Halo"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14},
}

_ERRORS = {
    400: "The page cannot be fetched, or holds no article",
    401: "An API key is needed",
    404: "There is no such session to resume",
    410: "The events to resume from are no longer kept",
    422: "The request is not valid; `detail` names the field",
    429: "The server is full, or the caller came too often; see Retry-After",
    503: "No engine can serve now; see Retry-After",
}


def sse_responses(example: str) -> dict[int | str, dict[str, Any]]:
    """Return the responses of a streaming endpoint."""
    error = {
        "schema": {
            "type": "object",
            "properties": {
                "detail": {"anyOf": [{"type": "string"}, {"type": "array", "items": {}}]},
                "code": {"type": "string"},
                "request_id": {"type": "string"},
            },
        }
    }
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": text, "content": {"application/json": error}}
        for status, text in _ERRORS.items()
    }
    responses[200] = {
        "description": "Server-Sent Events, exactly one of them terminal. Read it with `curl -N`.",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": example}},
    }
    return responses


def chat_responses(example: str) -> dict[int | str, dict[str, Any]]:
    """Return the responses of the chat endpoint, which streams or answers at once."""
    error = {
        "schema": {"type": "object"},
        "example": {
            "error": {
                "message": "messages: send at least one message",
                "type": "invalid_request_error",
                "param": "messages",
                "code": "invalid_input",
            }
        },
    }
    texts = {**_ERRORS, 400: "The request is not valid; `param` names the field"}
    del texts[422]
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": text, "content": {"application/json": error}}
        for status, text in texts.items()
    }
    responses[200] = {
        "description": "A chat completion; with `stream`, Server-Sent Events up to `[DONE]`.",
        "content": {
            "application/json": {"schema": {"type": "object"}, "example": _CHAT_ANSWER},
            "text/event-stream": {"schema": {"type": "string"}, "example": example},
        },
    }
    return responses
