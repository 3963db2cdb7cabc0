"""Tool calls that a model wrote into its text: found, decoded, and cut out of what is shown. Pure.

One path: `ToolCallStream.feed` and `finish`; `extract_tool_calls` feeds a whole text once.
"""

from org.llm.extract.result import Extraction, Incomplete, Refusal
from org.llm.extract.stream import ToolCallStream, extract_tool_calls

__all__ = ["Extraction", "Incomplete", "Refusal", "ToolCallStream", "extract_tool_calls"]
