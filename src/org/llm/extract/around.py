"""What stands around a candidate, and whether it is then meant as a call. Pure."""

from __future__ import annotations

import re

from org.llm.extract.patterns import lazy

_LAST_SENTENCE = r"[.!?](?:[\"')\]*_]*)\s+(?=\S)"
_EXAMPLE = r"""
    \bfor[ ](?:example|instance)\b | 例如 | 比如 | 示例 | 例子
  | \b(?:e\.?g\.?|i\.?e\.?|such[ ]as|namely),?\s*:?\s*\Z
  | \A\W*(?:an?[ ])?examples?(?:\s+(?:\#?\d+|of\b.*|\w+))?\W*\Z
  | \bexamples?\s*(?:\#?\d+|[A-Z])?\s*[:：]
  | \A\W*(?:usage|syntax|format|template|sample|demo|schema|spec|(?:in)?valid|(?:in)?correct
    | wrong|right|good|bad|expected)\b[^.:]{0,24}[:：]\W*\Z
  | \b(?:would|could|might|should)[ ](?:not[ ])?have[ ]\w+
  | \b(?:message|output|reply|response|request|answer|call|prompt|line|payload|body|text|string)[ ]
    (?:was|were|contained|said)\s*[:：]?\s*\Z
  | \A(?!.*\b(?:I|let[ ]me|we)\b).*\b(?:in|from|of)[ ]the[ ]
    (?:docs?|documentation|readme|manual|guide|tutorial|spec\w*|logs?|transcript)\b[^.]{0,30}[:：]\s*\Z
  | \A(?!.*\b(?:I|let[ ]me|we)\b).*\bto[ ](?:call|use|invoke|run)\b[^.]{0,80}
    \b(?:output|emit|write|send|respond|reply|print|format|return|provide|put|type)\b[^.]*\Z
  | \bif[ ](?:you|it|(?:the|a)[ ]\w+)[ ]
    (?:see|write|type|paste|send|emit|output|print|return)s?\b[^.:]{0,20}\Z
  | \b(?:like|writes|emits|prints|outputs|sends|produces|generates|trained[ ]to[ ]\w+)\s*\Z
  | \A\W*[\w.\-]+[ ]format\s*[:：]\s*\Z
  | \b(?:example|sample|hypothetical|illustrative|fictional|template)[ ]
    (?:of|tool|function|call|calls|invocation|json|usage|request|response|reply|payload|message)\b
  | \A\W*(?:imagine|suppose|assume|pretend)\b
  | \billustrat(?:e|es|ion|ing|ive)\b | \bhypothetical(?:ly)?\b
  | \b(?:would|might|could|should|must|can|may|will)[ ](?:\w+ly[ ]|then[ ]|just[ ]|also[ ])?
    (?:look[ ](?:something[ ])?like | look\s*[:：]?\s*\Z
      | be[ ](?:written|formatted|encoded|expressed|called[ ](?:like|with|as|by)))
  | \b(?:look|looks|written|formatted|something|structured|encoded|it[ ]is|used)[ ]like
    (?:[ ](?:this|so|that|these|the[ ]following))?\s*[:：.]?\s*\Z
"""
# Said of somebody's calls, and not as the end of a sentence after which one is made.
_ABOUT_CALLS = r"""
    \b(?:the|this|following|correct|right|proper|expected|required|exact|tool|calls?|calling|function|json)[ ]
    (?:format|syntax|notation|convention|form|schema|shape|template|structure)\s*
    (?:is\b|looks\b|would\b|for\b|to\b|of\b|used\b|[:：])
  | \b(?:you|one|people|users?|models?|the[ ]assistant|an?[ ]agent|agents|an?[ ]llm|llms|the[ ]model)[ ]
    (?:can|could|would|should|must|might|may|have[ ]to|need[ ]to|will)[ ]
    (?:\w+ly[ ]|then[ ]|just[ ]|also[ ])?
    (?:call|use|write|emit|send|invoke|output|print|type|produce|generate|respond|reply|issue|request|make|return)\b
  | \b(?:never|not|don['’]t|mustn['’]t|shouldn['’]t)[ ](?:\w+[ ])?
    (?:call|emit|output|write|send|invoke|run|execute)\b
  | \b(?:is|are|gets?|was|were)[ ](?:usually[ ]|often[ ]|typically[ ])?
    (?:written|encoded|represented|expressed|formatted|serialized|serialised|rendered|spelled)\b
  | (?<!as[ ])(?<!as[ ]the[ ])\b(?:model|assistant|user|log|logs|agent|bot|transcript|it|he|she|they|you)[ ]
    (?:then[ ]|had[ ]|once[ ]|previously[ ]|earlier[ ])?
    (?:wrote|said|printed|emitted|output|logged|sent|replied|answered|produced|called|used|typed)
    (?:[ ](?:this|that|the[ ]following|something[ ]like))?\s*[:：]?\s*\Z
"""
_QUOTED_LINE = r"(?:\A|\n)[ \t]*(?:>|\|)[^\n]*\Z"
_MARKUP = (
    r"<(/?)(examples?|samples?|samp|code|pre|blockquote|quote|docs?|documents?|documentation|tool_response|tool_result"
    r"|function_results?|results?|output|observation|logs?|history|transcript|comment)\b[^<>]*>"
)
_TRANSCRIPT = r"^(?:user|human|customer|q)\s*:.*^(?:assistant|ai|model|bot|agent|a)\s*:[^\n]*\Z"
_OF_DATA = r"""["'“‘«「『\\A-Za-z0-9_(\])]\Z|=\s*\Z|["']\s*:\s*\Z"""
_RESULT = (
    r"^\W*(?:observation|results?|tool (?:result|output|response)|stdout|stderr|logs?|returned)"
    r"\b[^\n:]{0,20}:\s*\Z"
)
_LOG_LINE = r"(?:\A|\n)\W{0,4}(?:\d{4}-\d\d-\d\d|\d\d:\d\d|(?:INFO|DEBUG|ERROR|WARN(?:ING)?|TRACE)\b)[^\n]*\Z"
_GOES_ON = r"[ \t]{0,64}[a-z,)?'’]"


def guard(before: str, after: str, *, marked: bool) -> str:
    """Why something between the texts `before` and `after` is not meant as a call; empty when it may be.

    `before` is the end of the visible text so far; `after` need not hold more than the next character
    that is not blank. `marked`: it starts with a mark of its own.
    """
    line = before[before.rfind("\n") + 1 :]
    if line.count("`") % 2:
        return "inline code"
    tags = list(lazy(_MARKUP, re.IGNORECASE).finditer(before))
    if tags and not tags[-1][1]:
        return "inside `" + tags[-1].group() + "`"
    if before.rfind("<!--") > before.rfind("-->"):
        return "in a comment"
    if lazy(_QUOTED_LINE).search(before):
        return "in a quotation"
    if lazy(_TRANSCRIPT, re.IGNORECASE | re.MULTILINE | re.DOTALL).search(before):
        return "in a transcript"
    if lazy(_LOG_LINE).search(before):
        return "a line of a log"
    if after.lstrip(" ")[:1] == "?":
        return "in a question"
    if not marked:
        if lazy(_OF_DATA).search(before):
            return "a part of other text"
        if lazy(_RESULT, re.IGNORECASE | re.MULTILINE).search(before):
            return "a result"
        if lazy(_GOES_ON).match(after):
            return "in the middle of a sentence"
    if is_example(before):
        return "presented as an example"
    return ""


def guard_list(before: str, after: str) -> str:
    """Why a list of Python calls is none, as far as that is asked of it only: manuals are named so.
    `after` is the next character."""
    if after in ("(", ":"):
        return "a link"
    if after in (".", ";", "!") and lazy(r"\w \Z").search(before):
        return "in the middle of a sentence"
    return ""


def is_example(before: str) -> bool:
    """Whether the sentence that leads up to it speaks about a call instead of making one."""
    lead = before.rstrip().rstrip("*_")
    if not lead:
        return False
    paragraph = lead[lead.rfind("\n") + 1 :]
    sentence = lazy(_LAST_SENTENCE).split(paragraph.replace("e.g.", "eg").replace("E.g.", "eg"))[-1]
    flags = re.IGNORECASE | re.VERBOSE
    if lazy(_EXAMPLE, flags).search(sentence):
        return True
    return sentence[-1:] not in (".", "!", "?") and bool(lazy(_ABOUT_CALLS, flags).search(sentence))
