"""Steps, chats, tools and sessions: runs over the streams of single requests."""

from allm_actors.chat import tool_help
from allm_actors.chat.outcomes import AskUser, Continue, Halt, ToolBatch
from allm_actors.chat.reducer import StreamReducer
from allm_actors.chat.runs import chat, step, stream, stream_step
from allm_actors.chat.session import Session
from allm_actors.chat.session_stream import SessionHandle, SessionStream
from allm_actors.chat.tool_runner import run_tool_calls, stream_tool_calls

__all__ = [
    "AskUser",
    "Continue",
    "Halt",
    "Session",
    "SessionHandle",
    "SessionStream",
    "StreamReducer",
    "ToolBatch",
    "chat",
    "run_tool_calls",
    "step",
    "stream",
    "stream_step",
    "stream_tool_calls",
    "tool_help",
]
