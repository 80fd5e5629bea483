"""/v1/files with the official `openai` package: uploads in memory and by way of the disk, checked line by line."""

from __future__ import annotations

import io
import json
import socket
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SCRIPTED, Gateway, Start
from stepwell.errors import BadRequest
from stepwell.gateway.database import Database
from stepwell.gateway.tuning import file_rows
from stepwell.gateway.tuning.examples import summary
from stepwell.gateway.tuning.multipart import parts

TUNING = """
[fine_tuning]
models = { writer = "recipe.toml" }
"""
KEYS = '[[keys]]\ntenant = "a"\nenv = "KEY_A"\n\n[[keys]]\ntenant = "b"\nenv = "KEY_B"\n'
ROWS = b"".join(
    json.dumps({"messages": [{"role": "user", "content": f"{at}?"}, {"role": "assistant", "content": "Yes."}]}).encode()
    + b"\n"
    for at in range(12)
)


@pytest.fixture
def tuning(serve: Start, tmp_path: Path) -> Start:
    """A gateway with [fine_tuning]."""

    def start(config: str = SCRIPTED + TUNING, *, name: str = "gateway", **environment: str) -> Gateway:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "recipe.toml").write_text("")
        return serve(config, name=name, **environment)

    return start


def client(gateway: Gateway, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.url, api_key=key, max_retries=0)


def upload(ai: openai.OpenAI, content: bytes = ROWS, name: str = "rows.jsonl") -> openai.types.FileObject:
    return ai.files.create(file=(name, content), purpose="fine-tune")


def test_a_file_is_kept_listed_read_and_deleted(tuning: Start) -> None:
    with client(tuning()) as ai:
        told = upload(ai)
        assert (told.bytes, told.filename, told.purpose, told.status) == (
            len(ROWS), "rows.jsonl", "fine-tune", "processed")  # fmt: skip
        assert ai.files.retrieve(told.id) == told
        assert ai.files.content(told.id).content == ROWS
        second = upload(ai, name="second.jsonl")
        assert [each.id for each in ai.files.list()] == [second.id, told.id]
        assert [each.id for each in ai.files.list(order="asc", limit=1)] == [told.id, second.id]
        assert list(ai.files.list(purpose="batch")) == []
        assert ai.files.delete(told.id).deleted
        for gone in (ai.files.retrieve, ai.files.content, ai.files.delete):
            with pytest.raises(openai.NotFoundError):
                gone(told.id)
        assert [each.id for each in ai.files.list()] == [second.id]
        assert ai.files.wait_for_processing(second.id).id == second.id


async def test_the_async_client(tuning: Start) -> None:
    async with openai.AsyncOpenAI(base_url=tuning().url, api_key="none", max_retries=0) as ai:
        told = await ai.files.create(file=io.BytesIO(ROWS), purpose="fine-tune")
        assert [each.id async for each in ai.files.list()] == [told.id]
        assert (await ai.files.content(told.id)).content == ROWS


def test_what_is_too_large_for_memory_goes_to_disk(tuning: Start) -> None:
    small = SCRIPTED.replace("port = 0", "port = 0\nmax_body_bytes = 10000") + TUNING
    gateway = tuning(small)
    rows = ROWS * 5_000
    with client(gateway) as ai:
        told = upload(ai, rows)
        assert told.bytes == len(rows)
        assert ai.files.content(told.id).content == rows
        with pytest.raises(openai.BadRequestError, match=f"line {5_000 * 12 + 1}: not JSON"):
            upload(ai, rows + b"{")
        with pytest.raises(openai.APIStatusError) as caught:  # only uploads may be larger than memory
            ai.chat.completions.create(model="well", messages=[{"role": "user", "content": "x" * 20_000}])
        assert caught.value.status_code == 413
    files = gateway.folder / "stepwell-data" / "fine-tuning" / "files"
    assert [each.name for each in files.iterdir()] == [f"{told.id}.jsonl"]


def test_a_chunked_upload_of_no_stated_length(tuning: Start) -> None:
    gateway = tuning(SCRIPTED.replace("port = 0", "port = 0\nmax_body_bytes = 10000") + TUNING)
    fields = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--b\r\n'
    opening = b'Content-Disposition: form-data; name="file"; filename="r.jsonl"\r\n\r\n'
    form = fields + opening + ROWS * 500 + b"\r\n--b--\r\n"
    head = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as line:
        line.sendall(head + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(form), 7000):
            piece = form[at : at + 7000]
            line.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        line.sendall(b"0\r\n\r\n")
        told = b""
        while piece := line.recv(65536):
            told += piece
    assert told.startswith(b"HTTP/1.1 200 ")
    assert json.loads(told.partition(b"\r\n\r\n")[2])["bytes"] == len(ROWS) * 500


def test_an_upload_that_is_broken_off_leaves_nothing(tuning: Start) -> None:
    gateway = tuning(SCRIPTED.replace("port = 0", "port = 0\nmax_body_bytes = 1000") + TUNING)
    head = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as line:
        line.sendall(head + b"Content-Length: 9000000\r\n\r\n" + b"x" * 5_000_000)
    with client(gateway) as ai:
        assert list(ai.files.list()) == []
        upload(ai)
    files = gateway.folder / "stepwell-data" / "fine-tuning" / "files"
    assert len(list(files.iterdir())) == 1


def test_uploads_under_way_share_a_tenants_room(tuning: Start) -> None:
    limits = TUNING + "max_file_bytes = 1000000\ntenant_bytes = 1500000\n"
    keyed = SCRIPTED.replace("port = 0", "port = 0\nmax_body_bytes = 1000") + KEYS + limits
    gateway = tuning(keyed, KEY_A="sk-a", KEY_B="sk-b")

    def begun(key: str, num_bytes: int) -> socket.socket:
        line = socket.create_connection(("127.0.0.1", gateway.port), 10)
        head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 1000000\r\n\r\n"
        line.sendall(head.encode() + b"x" * num_bytes)
        return line

    with begun("sk-a", 900_000) as first:
        first.settimeout(0.5)
        with pytest.raises(TimeoutError):
            first.recv(1000)
        with begun("sk-a", 900_000) as second:
            assert second.recv(1000).startswith(b"HTTP/1.1 429 ")
        with client(gateway, "sk-b") as b:
            upload(b, ROWS * 500)
    with client(gateway, "sk-a") as a:
        upload(a, ROWS * 500)  # what was broken off takes no room


def test_a_large_upload_of_who_may_not_is_told_so(tuning: Start) -> None:
    small = SCRIPTED.replace("port = 0", "port = 0\nmax_body_bytes = 1000") + KEYS + TUNING + 'tenants = ["a"]\n'
    gateway = tuning(small, KEY_A="sk-a", KEY_B="sk-b")
    with client(gateway, "sk-x") as stranger, pytest.raises(openai.AuthenticationError):
        upload(stranger, ROWS * 100)
    with client(gateway, "sk-b") as b, pytest.raises(openai.PermissionDeniedError):
        upload(b, ROWS * 100)


def test_limits_are_held(tuning: Start) -> None:
    limits = TUNING + f"max_file_bytes = {len(ROWS) + 100}\ntenant_bytes = {2 * len(ROWS) + 100}\n"
    config = SCRIPTED.replace("port = 0", "port = 0\nmax_body_bytes = 10000") + limits
    with client(tuning(config)) as ai:
        first = upload(ai)
        with pytest.raises(openai.APIStatusError) as caught:
            upload(ai, ROWS * 2)
        assert caught.value.status_code == 413
        with pytest.raises(openai.APIStatusError) as caught:
            upload(ai, ROWS * 200)
        assert caught.value.status_code == 413
        upload(ai)
        with pytest.raises(openai.BadRequestError, match="more than"):
            upload(ai)
        ai.files.delete(first.id)
        upload(ai)


def test_tenants_see_only_their_own(tuning: Start) -> None:
    gateway = tuning(SCRIPTED + KEYS + TUNING, KEY_A="sk-a", KEY_B="sk-b")
    with client(gateway, "sk-a") as a, client(gateway, "sk-b") as b:
        name = upload(a).id
        assert list(b.files.list()) == []
        for not_theirs in (b.files.retrieve, b.files.content, b.files.delete):
            with pytest.raises(openai.NotFoundError):
                not_theirs(name)
        with pytest.raises(openai.BadRequestError):
            b.files.list(after=name)
        assert a.files.retrieve(name).id == name
    with client(gateway, "sk-x") as stranger, pytest.raises(openai.AuthenticationError):
        upload(stranger)


def test_only_tenants_who_may(tuning: Start) -> None:
    gateway = tuning(SCRIPTED + KEYS + TUNING + 'tenants = ["a"]\n', KEY_A="sk-a", KEY_B="sk-b")
    with client(gateway, "sk-a") as a, client(gateway, "sk-b") as b:
        upload(a)
        with pytest.raises(openai.PermissionDeniedError):
            upload(b)
        with pytest.raises(openai.PermissionDeniedError):
            b.files.list()


def test_without_the_section_there_is_nothing(serve: Start) -> None:
    with client(serve()) as ai:
        with pytest.raises(openai.NotFoundError, match="fine_tuning"):
            ai.files.list()
        with pytest.raises(openai.NotFoundError, match="fine_tuning"):
            upload(ai)


def test_names_are_told_as_names(tuning: Start) -> None:
    with client(tuning()) as ai:
        assert upload(ai, name="../../etc/pass wd.jsonl").filename == "pass wd.jsonl"
        assert upload(ai, name='a "quoted" näme.jsonl').filename == 'a "quoted" näme.jsonl'


def test_a_file_whose_time_is_over(tuning: Start) -> None:
    with client(tuning()) as ai:
        kept = ai.files.create(
            file=("r.jsonl", ROWS), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
        )
        assert kept.expires_at is not None
        assert kept.expires_at - kept.created_at == 3600
        with pytest.raises(openai.BadRequestError):
            ai.files.create(
                file=("r.jsonl", ROWS), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 1}
            )


WRONG: tuple[tuple[Any, bytes, str], ...] = (
    ("batch", ROWS, "purpose"),
    ("fine-tune", b"", "line 1: the file is empty"),
    ("fine-tune", ROWS + b"{broken\n", "line 13: not JSON"),
    ("fine-tune", ROWS + b"[]\n", "line 13: not a JSON object"),
)


def test_what_is_wrong_is_refused(tuning: Start) -> None:
    with client(tuning()) as ai:
        for purpose, content, says in WRONG:
            with pytest.raises(openai.BadRequestError, match=says):
                ai.files.create(file=("r.jsonl", content), purpose=purpose)
        assert list(ai.files.list()) == []


def talk(*turns: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({}, 'needs "messages"'),
        ({"messages": []}, "at least one"),
        ({"messages": ["x"]}, r"messages\[0\] must be an object"),
        (talk(("user", "a"), ("oracle", "b")), r"messages\[1\].role"),
        (talk(("user", "a"), ("assistant", None)), r"messages\[1\].content"),
        (talk(("user", "a"), ("assistant", " ")), r"messages\[1\].content is empty"),
        (talk(("assistant", "b")), "what the user asks"),
        (talk(("user", [{"type": "image_url", "image_url": {"url": "x"}}])), r"messages\[0\].content"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 2}]},
            "weight",
        ),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [1]}]},
            "calls a tool",
        ),
        ({"prompt": "", "completion": "x"}, "needs"),
        ({"prompt": "a", "completion": 1}, "completion must be a text"),
        ({"input": {}, "preferred_output": []}, "preference"),
    ],
)
def test_a_line_that_is_wrong_is_named(row: dict[str, Any], says: str) -> None:
    good = json.dumps(talk(("user", "a"), ("assistant", "b"))).encode() + b"\n"
    with pytest.raises(BadRequest, match=f"line 3: .*{says}"):
        summary(io.BytesIO(good * 2 + json.dumps(row).encode() + b"\n" + good))


def test_what_a_file_holds() -> None:
    rows = [
        talk(("user", "a"), ("assistant", "b")),
        talk(("system", "s"), ("user", "a"), ("assistant", "b")),
        talk(("user", [{"type": "text", "text": "a"}])),
        {"prompt": "a", "completion": "b"},
        {"prompt": "a"},
    ]
    told = summary(io.BytesIO(b"\xef\xbb\xbf" + b"\n\n".join(json.dumps(row).encode() for row in rows)))
    assert (told.num_rows, told.num_long, told.first_unanswered) == (5, 1, 5)


def test_a_line_as_long_as_a_book_is_refused() -> None:
    with pytest.raises(BadRequest, match="line 1: longer than"):
        summary(io.BytesIO(b'{"prompt":"' + b"x" * 2_000_000))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_check(content: bytes) -> None:
    told = ""
    try:
        summary(io.BytesIO(content))
    except BadRequest as error:
        told = str(error)
    assert not told or told.startswith("line ")


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.text(st.characters(codec="ascii", exclude_characters='"\\\r\n'), min_size=1), st.binary()), max_size=5),
    st.text("abcXYZ0189'()+_,-./:=?", min_size=1, max_size=20),
)  # fmt: skip
def test_a_form_comes_apart_as_it_was_put_together(fields: list[tuple[str, bytes]], boundary: str) -> None:
    mark = b"--" + boundary.encode()
    body = b"".join(
        b'%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (mark, name.encode(), value)
        for name, value in fields
    ) + mark + b"--\r\n"  # fmt: skip
    if any(mark in value for _, value in fields):
        return
    found = parts(body, f'multipart/form-data; boundary="{boundary}"')
    assert [body[part.start : part.end] for part in found] == [value for _, value in fields]


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_break_the_form(body: bytes) -> None:
    for head in (b"", b"--b\r\n", b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n'):
        try:
            found = parts(head + body, "multipart/form-data; boundary=b")
        except BadRequest:
            continue
        assert all(0 <= part.start <= part.end <= len(head + body) for part in found)


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "multipart/form-data", "multipart/form-data; boundary="]
)
def test_a_form_needs_its_boundary(content_type: str) -> None:
    with pytest.raises(BadRequest, match="boundary"):
        parts(b"--b--", content_type)


def test_a_file_whose_time_is_over_stays_while_a_job_needs_it(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db", file_rows.SCHEMA)
    for name, expires_s in (("file-used", 1.0), ("file-old", 1.0), ("file-new", None)):
        file = file_rows.File("a", name, "r.jsonl", "fine-tune", 1, 0.0, expires_s)
        database.do(lambda each, name=name: file_rows.comes(each, "a", name, 1))  # type: ignore[misc]
        database.do(lambda each, file=file: file_rows.insert(each, file))  # type: ignore[misc]
    assert database.do(lambda each: file_rows.one(each, "a", "file-used")) is None
    assert database.do(lambda each: file_rows.over(each, lambda _, name: "job" * (name == "file-used"))) == ["file-old"]
    database.do(lambda each: file_rows.left(each, ["file-old"]))
    assert database.do(lambda each: file_rows.over(each, lambda *_: "")) == ["file-used"]
    database.shut()
