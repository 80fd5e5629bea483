"""The lines of a training file: each is checked, and told by its number where it is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from stepwell.errors import BadRequest
from stepwell.gateway import private

MOST_LINE_BYTES = 1024 * 1024
ROLES = ("system", "developer", "user", "assistant")
BOM = b"\xef\xbb\xbf"

decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode


class Example(Struct, frozen=True):
    """One line: what the user said last, and the answer; empty where the teacher is to give one."""

    prompt: str
    completion: str = ""
    messages: tuple[dict[str, str], ...] = ()
    weight: float = 1.0


class Summary(Struct, frozen=True):
    """What a file holds."""

    num_rows: int
    num_long: int
    """Talks of more than a question and its answer, of which the student learns the last answer alone."""
    first_unanswered: int
    """The first line without an answer; 0: all have one."""


def summary(file: BinaryIO) -> Summary:
    """Check every line. Raises BadRequest with the number of the first that is wrong."""
    num_rows = num_long = first = 0
    for number, example in examples(file):
        num_rows += 1
        num_long += len(example.messages) > (2 if example.completion else 1)
        first = first or (0 if example.completion else number)
    if not num_rows:
        raise wrong(1, "the file is empty: write one example a line")
    return Summary(num_rows, num_long, first)


def examples(file: BinaryIO) -> Iterator[tuple[int, Example]]:
    """Each line's number and example; empty lines are passed over. Raises BadRequest."""
    number = 0
    while line := file.readline(MOST_LINE_BYTES + 1):
        number += 1
        if len(line) > MOST_LINE_BYTES:
            raise wrong(number, f"longer than {MOST_LINE_BYTES} bytes")
        text = line.removeprefix(BOM) if number == 1 else line
        if text.strip():
            yield number, example(text, number)


def example(line: bytes, number: int) -> Example:
    """One line. Raises BadRequest."""
    try:
        fields = decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise wrong(number, f"not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise wrong(number, 'not a JSON object; write {"messages": […]}')
    if "messages" in fields:
        return talk(fields["messages"], number)
    prompt, completion = fields.get("prompt"), fields.get("completion", "")
    if "preferred_output" in fields:
        raise wrong(number, "pairs of preference (dpo) are not learned from; give the better answer as an example")
    if not isinstance(prompt, str) or not prompt.strip():
        raise wrong(number, 'needs "messages", or the texts "prompt" and "completion"')
    if not isinstance(completion, str):
        raise wrong(number, "completion must be a text")
    return Example(prompt, completion.strip())


def talk(messages: object, number: int) -> Example:
    """A talk in OpenAI's form: what the user said last is the prompt, the answer behind it the completion."""
    if not isinstance(messages, list) or not messages:
        raise wrong(number, "messages must be a list of at least one message")
    turns = tuple(turn(message, f"messages[{at}]", number) for at, message in enumerate(messages))
    answered = turns[-1]["role"] == "assistant"
    asked = turns[:-1] if answered else turns
    if not asked or asked[-1]["role"] != "user" or not asked[-1]["content"].strip():
        raise wrong(number, "messages must end with what the user asks, or with the answer to that")
    completion = turns[-1]["content"].strip() if answered else ""
    if answered and not completion:
        raise wrong(number, f"messages[{len(turns) - 1}].content is empty")
    weight = messages[-1].get("weight", 1)
    if isinstance(weight, bool) or weight not in (0, 1):
        raise wrong(number, f"messages[{len(turns) - 1}].weight must be 0 or 1")
    return Example(asked[-1]["content"], completion, turns, float(weight))


def turn(message: object, at: str, number: int) -> dict[str, str]:
    """One message as text. Raises BadRequest."""
    if not isinstance(message, dict):
        raise wrong(number, f"{at} must be an object")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise wrong(number, f"{at}.role must be one of {', '.join(ROLES)}: tools are not learned")
    if message.get("tool_calls") or message.get("function_call"):
        raise wrong(number, f"{at} calls a tool: only texts are learned")
    if isinstance(content, list):
        content = joined(content)
    if not isinstance(content, str):
        raise wrong(number, f"{at}.content must be a text, or a list of parts that are texts")
    return {"role": role, "content": content}


def joined(parts: list[Any]) -> str | None:
    """The text of a message in parts; None where one of them is no text."""
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    whole = len(texts) == len(parts) and all(isinstance(text, str) for text in texts)
    return "".join(map(str, texts)) if whole else None


def wrong(number: int, what: str) -> BadRequest:
    """What is wrong with a line."""
    return BadRequest(f"line {number}: {what}", param="file")


def rows(source: Path, out: Path) -> int:
    """Write a training file as rows for a recipe; how many. Examples of weight 0 are left out."""
    num_rows = 0
    with source.open("rb") as file, private.opened(out, "wb") as written:
        for _, each in examples(file):
            if each.weight:
                told = {"prompt": each.prompt, "completion": each.completion, "messages": each.messages}
                written.write(encode({name: value for name, value in told.items() if value}) + b"\n")
                num_rows += 1
    return num_rows
