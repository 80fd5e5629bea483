"""What the cache saves on a real day's arrivals: the whole AzureLLMInferenceTrace_conv, asked in CLINC150's words.

19,366 arrivals in 58 minutes, each with the tokens that it had; which question it asked is not in the trace, so answers
and wordings are drawn by Zipf(1), each in random order, the 1,200 questions out of scope among them. The well is put
together as `stepwell serve` does it: exact tier, all-MiniLM-L6-v2, a promise of 2 %, audits judged against an oracle
that knows every intent. It starts empty; requests come one after the other, so that nothing is saved by asking at once.
What goes on beside requests (index, audits, fits) is let finish between them: at the trace's pace it would have.

    python -m bench.cache.azure
"""

from __future__ import annotations

import asyncio
import csv
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from bench.cache.texts import WORK, clinc, folder
from stepwell import config as configuration
from stepwell.cli.explain import answered
from stepwell.engines.texts import answered_text
from stepwell.gateway import openai
from stepwell.gateway.admit import ANYBODY
from stepwell.quality.cut import fit
from stepwell.well import Well, build

CONFIG = """
[engines.oracle]
type = "http"
url = "http://127.0.0.1:{port}/v1"
[routes.well]
engines = ["oracle"]
price = "gpt-4o-mini"
share = "tenant"
[cache]
path = ""
[ledger]
path = "{folder}/ledger.db"
[semantic]
converted = "{converted}"
snapshot = ""
deadline_ms = 10000
[promise]
error = 0.02
judge = "exact"
"""
SEED = 1


class Oracle:
    """The large model: it knows the intent of every text, and answers with its name."""

    def __init__(self, intents: dict[str, str]) -> None:
        self.intents = intents
        self.tokens = (0, 0)
        """Of the arrival that is being asked."""

    def reply(self, body: bytes) -> bytes:
        """One chat completion."""
        intent = self.intents[json.loads(body)["messages"][-1]["content"]]
        message = {"role": "assistant", "content": f"This is about {intent}."}
        usage = {"prompt_tokens": self.tokens[0], "completion_tokens": self.tokens[1], "total_tokens": sum(self.tokens)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer on one connection, until it ends."""
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                reply = self.reply(await reader.readexactly(length))
                about = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(reply)
                writer.write(b"HTTP/1.1 200 OK\r\n%b%b" % (about, reply))


def measure() -> dict[str, float]:
    """`azure_saved`: share of output tokens that no large model had to give; `azure_wrong`: of requests, wrong ones."""
    return asyncio.run(played())


async def played() -> dict[str, float]:
    """Play the trace once."""
    arrivals = tokens()
    texts, intents = asked(len(arrivals))
    oracle = Oracle(intents)
    saved_tokens, wrong, how = 0, 0, Counter[str]()
    began_s = perf_counter()
    async with well_over(oracle) as well:
        for number, (text, spent) in enumerate(zip(texts, arrivals, strict=True)):
            oracle.tokens = spent
            step, said = await one(well, text)
            how[step] += 1
            wrong += said != f"This is about {intents[text]}."
            saved_tokens += spent[1] if step != "large" else 0
            if number % 2000 == 1999:
                told = ", ".join(f"{name} {count / (number + 1):.3f}" for name, count in how.most_common())
                print(f"  {number + 1:>6}: {told}; wrong {wrong / (number + 1):.4f}", flush=True)
    print(f"  {len(set(texts)):,} different texts, {perf_counter() - began_s:.0f} s")
    saved = saved_tokens / sum(spent[1] for spent in arrivals)
    return {"azure_saved": saved, "azure_wrong": wrong / len(arrivals)}


async def one(well: Well, text: str) -> tuple[str, str | None]:
    """Ask one question, then let everything beside requests finish; the step that answered, and what it said."""
    body = json.dumps({"model": "well", "messages": [{"role": "user", "content": text}], "temperature": 0}).encode()
    name = well.door.new_id()
    request = openai.parse("chat", body, id=name, caller=ANYBODY, started_s=perf_counter())
    outcome, told = await answered(well, request)
    last = outcome.visits[-1]
    await settled(well)
    step = last.step if last.step == "large" else last.reason.partition(",")[0].removeprefix("hit: ")
    return step, answered_text(told.body, told.form, "chat")


async def settled(well: Well) -> None:
    """What `stepwell serve` does every half second."""
    meaning = well.meaning
    assert meaning is not None  # noqa: S101 - the configuration has it
    await meaning.audits.line.join()
    await meaning.audits.read()
    if meaning.audits.promise.due():
        meaning.audits.promise.adopt(fit(meaning.audits.promise.past()))
    await meaning.semantic.catch_up()


@asynccontextmanager
async def well_over(oracle: Oracle) -> AsyncIterator[Well]:
    """A well whose large model is the oracle."""
    server = await asyncio.start_server(oracle.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as ledger:
        well = build(configuration.parse(CONFIG.format(port=port, folder=ledger, converted=WORK)))
        assert well.meaning is not None  # noqa: S101 - the configuration has it
        judging = asyncio.create_task(well.meaning.audits.run())
        try:
            yield well
        finally:
            judging.cancel()
            await well.close()
            server.close()


def tokens() -> list[tuple[int, int]]:
    """Input and output tokens of each arrival, in order."""
    with (Path(folder()) / "plan" / "AzureLLMInferenceTrace_conv.csv").open() as file:
        return [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in csv.DictReader(file)]


def asked(num: int) -> tuple[list[str], dict[str, str]]:
    """So many texts: an answer by Zipf(1), then one of its wordings by Zipf(1); and the intent of every text."""
    chance = np.random.default_rng(SEED)
    wordings: dict[str, list[str]] = {}
    intents: dict[str, str] = {}
    for text, intent in clinc():
        if intents.setdefault(text, intent) == intent:
            wordings.setdefault(intent, []).append(text)
    names = chance.permutation(sorted(wordings)).tolist()
    orders = {name: chance.permutation(wordings[name]).tolist() for name in names}
    drawn = chance.choice(names, num, p=zipf(len(names))).tolist()
    return [str(chance.choice(orders[name], p=zipf(len(orders[name])))) for name in drawn], intents


def zipf(num: int) -> NDArray[np.float64]:
    """Shares that fall as one over the rank."""
    shares = 1 / np.arange(1, num + 1, dtype=np.float64)
    found: NDArray[np.float64] = shares / shares.sum()
    return found


if __name__ == "__main__":
    print(json.dumps(measure()))
