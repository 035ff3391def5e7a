"""OpenAI: Chat Completions, which many servers speak, and Responses."""
