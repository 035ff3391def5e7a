"""Recorded error answers of real servers."""

import json
from pathlib import Path

import pytest

from allm_actors.providers._errors import http_error

CORPUS = Path(__file__).parents[3] / "shared" / "corpus" / "http_errors"
FILES = sorted(CORPUS.glob("*.json"))
DISPLAY = {
    "openai_chat": "OpenAI",
    "openai_responses": "OpenAI",
    "anthropic": "Anthropic",
    "gemini": "Gemini",
}
BY_STATUS = {
    400: "invalid_request",
    401: "authentication_failed",
    404: "invalid_request",
    429: "rate_limited",
}

REASONS = {
    "gemini-400-aiplatform-googleapis-co-2": "context_length_exceeded",
    "gemini-400-generativelanguage-googl-1": "authentication_failed",
    "openai_chat-400-api-deepseek-com-2": "context_length_exceeded",
    "openai_chat-400-ollama-com-3": "context_length_exceeded",
    "openai_chat-400-openrouter-ai-4": "context_length_exceeded",
    "openai_responses-400-api-openai-com-2": "context_length_exceeded",
}
"""Where the body says more than the status does."""


@pytest.mark.skipif(not FILES, reason="the corpus of recorded answers is not beside the project")
def test_recorded_answers_are_classified():  # P-101, P-106, P-107
    seen = set()
    for file in FILES:
        case = json.loads(file.read_text())
        body = case["body"]
        error = http_error(
            case["status"],
            case["headers"],
            body.encode() if isinstance(body, str) else json.dumps(body).encode(),
            provider="x",
            display=DISPLAY[case["provider"]],
        )
        assert error.reason == REASONS.get(file.stem, BY_STATUS[case["status"]]), (file.stem, error.message)
        assert error.status == case["status"]
        assert error.message, file.stem
        assert not error.message.startswith("{"), file.stem
        seen.add(file.stem)
    assert REASONS.keys() <= seen, "an exception for a file that is not there"
