"""One object through whole jobs: where its payloads come from, and what is said when one fails."""

import asyncio
import base64
import gzip
from collections.abc import Callable
from typing import Any

import pytest

from transform_engine.agent import InstanceResult, run_instance
from transform_engine.data_log import MemoryLog
from transform_engine.spec import Container, InstanceSpec, JobSpec, Readings
from transform_engine.storage import FolderStorage, write_object

_Request = Callable[..., dict[str, Any]]
_Containers = Callable[..., Container]
_Job = Callable[..., JobSpec]
_Calls = Callable[[Container], list[dict[str, Any]]]


def _run(job: JobSpec, bucket: FolderStorage, key: str, content: bytes) -> InstanceResult:
    async def scenario() -> InstanceResult:
        await write_object(bucket, "bkt", key, content)
        spec = InstanceSpec(
            job=job, instance_id="i-1", instance_index=0, instance_count=1, started_at=0
        )
        return await run_instance(spec, storage=bucket, log=MemoryLog(), stop=asyncio.Event())

    return asyncio.run(scenario())


def _output(bucket: FolderStorage) -> bytes:
    (found,) = bucket.list("bkt", "out/")
    return b"".join(asyncio.run(_read(bucket, found.key)))


async def _read(bucket: FolderStorage, key: str) -> list[bytes]:
    return [piece async for piece in bucket.chunks("bkt", key)]


_WIDE = b"".join(b"%07d%s\n" % (number, b"x" * 92) for number in range(30_000))


@pytest.mark.parametrize(
    ("name", "content", "changes", "where"),
    [
        pytest.param(
            "a", b"1\n2\nbad\n4\n", {"BatchStrategy": "SingleRecord"}, "record 2", id="single"
        ),
        pytest.param("a", b"1\n2\nbad", {}, "records 0 to 2", id="several"),
        pytest.param(
            "a",
            _WIDE.replace(b"0020000x", b"0020000!"),
            {"MaxPayloadInMB": 1},
            "records 10485 to 20969",
            id="lines that were not counted",
        ),
        pytest.param(
            "a.gz",
            gzip.compress(_WIDE.replace(b"0020000x", b"0020000!")),
            {"MaxPayloadInMB": 1, "TransformInput": {"CompressionType": "Gzip"}},
            "bytes 1048500 to 2096999",
            id="lines that nobody can count again",
        ),
        pytest.param(
            "a",
            b"1,x\n2,bad\n3,x\n",
            {"DataProcessing": {"InputFilter": "$[1]"}},
            "records 0 to 2",
            id="filtered",
        ),
    ],
)
def test_a_failure_says_which_records_were_in_the_request(
    name: str,
    content: bytes,
    changes: dict[str, Any],
    where: str,
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
) -> None:
    model = container("csv_sum" if b"!" not in content else None, script=[{"status": 200}])
    if name == "a.gz" or b"!" in content:
        # The second request of two or three is refused.
        model = container(script=[{"status": 200, "times": 1}, {"status": 400, "body": "a !"}])
    result = _run(job_for(request_for(**changes), [model]), bucket, f"in/{name}", content)
    assert f"bkt/in/{name}: {where}: ClientError: 400 Message: " in (result.detail or "")


@pytest.mark.parametrize(
    ("readings", "changes", "content", "sent", "output"),
    [
        pytest.param(
            Readings(line_feed_in_single_record=True),
            {"BatchStrategy": "SingleRecord"},
            b"1\n2",
            [b"1\n", b"2"],
            b"1\n\n2\n",
            id="line_feed_in_single_record",
        ),
        pytest.param(
            Readings(line_feed_after_last_record=False),
            {},
            b"1\n2\n",
            [b"1\n2"],
            b"1\n2\n",
            id="line_feed_after_last_record",
        ),
        pytest.param(
            Readings(carriage_return_in_record=False),
            {},
            b"1\r\n2\r",
            [b"1\n2"],
            b"1\n2\n",
            id="carriage_return_in_record",
        ),
        pytest.param(
            Readings(blank_line_is_record=False),
            {},
            b"\n1\n\n2\n",
            [b"1\n2\n"],
            b"1\n2\n\n",
            id="blank_line_is_record",
        ),
        pytest.param(
            Readings(line_feed_only_where_missing=True),
            {},
            b"1\n2\n",
            [b"1\n2\n"],
            b"1\n2\n",
            id="line_feed_only_where_missing",
        ),
        pytest.param(
            Readings(bytes_in_mb=10),
            {"MaxPayloadInMB": 1},
            b"12345678\n123\n12345\n",
            [b"12345678\n", b"123\n12345\n"],
            b"12345678\n\n123\n12345\n\n",
            id="bytes_in_mb",
        ),
    ],
)
def test_what_no_source_tells_of_lines_can_be_read_otherwise(
    readings: Readings,
    changes: dict[str, Any],
    content: bytes,
    sent: list[bytes],
    output: bytes,
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    invocations: _Calls,
) -> None:
    model = container("echo")
    job = job_for(request_for(**changes), [model], readings=readings)
    assert _run(job, bucket, "in/a", content).ok
    assert [base64.b64decode(call["body"]) for call in invocations(model)] == sent
    assert _output(bucket) == output


@pytest.mark.parametrize(
    ("readings", "output"),
    [
        pytest.param(Readings(), b'"<a>&\xe2\x80\xa8"\n', id="as it is"),
        pytest.param(
            Readings(json_escapes_html=True),
            b'"\\u003ca\\u003e\\u0026\\u2028"\n',
            id="json_escapes_html",
        ),
        pytest.param(Readings(scalar_as_text=True), b"<a>&\xe2\x80\xa8\n", id="scalar_as_text"),
    ],
)
def test_what_no_source_tells_of_json_can_be_read_otherwise(
    readings: Readings,
    output: bytes,
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
) -> None:
    request = request_for(
        TransformInput={"ContentType": "application/jsonlines"},
        TransformOutput={"Accept": "application/jsonlines"},
        DataProcessing={"OutputFilter": "$.name"},
    )
    job = job_for(request, [container("echo")], readings=readings)
    content = '{"name":"<a>&\u2028"}\n'.encode()
    assert _run(job, bucket, "in/a", content).ok
    assert _output(bucket) == output


def test_an_empty_object_can_be_read_as_a_failure(
    request_for: _Request, container: _Containers, job_for: _Job, bucket: FolderStorage
) -> None:
    job = job_for(request_for(), [container("echo")], readings=Readings(empty_object_fails=True))
    result = _run(job, bucket, "in/a", b"")
    assert "bkt/in/a: ClientError: 400 Message: the object must have a record" in (
        result.detail or ""
    )
    assert [*bucket.list("bkt", "out/")] == []


def test_a_join_that_picks_members_falls_back_on_parsing_where_it_must(
    request_for: _Request, container: _Containers, job_for: _Job, bucket: FolderStorage
) -> None:
    request = request_for(
        TransformInput={"ContentType": "application/jsonlines"},
        TransformOutput={"Accept": "application/jsonlines"},
        DataProcessing={"JoinSource": "Input", "OutputFilter": "$['id','SageMakerOutput']"},
    )
    content = b'{"id": 1.0, "x": [1]}\n{"x": 2}\r\n{"id":"\\u00e9"}'
    assert _run(job_for(request, [container("json_label")]), bucket, "in/a", content).ok
    assert _output(bucket).decode() == (
        '{"SageMakerOutput":{"label":1},"id":1.0}\n'
        '{"SageMakerOutput":{"label":1}}\n'
        '{"SageMakerOutput":{"label":1},"id":"é"}\n'
    )


@pytest.mark.parametrize(
    ("reply", "meanwhile"),
    [
        pytest.param(b"x", 257, id="small"),
        pytest.param(b"x" * 100_000, 9, id="large"),
    ],
)
def test_a_request_that_waits_holds_up_others_only_where_replies_are_large(
    reply: bytes, meanwhile: int, request_for: _Request, job_for: _Job, bucket: FolderStorage
) -> None:
    rows = [b"%03d" % number for number in range(400)]
    others = seen = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal others, seen
        while head := (await reader.readuntil(b"\r\n\r\n")):
            body = b"" if head.startswith(b"GET") else await reader.readexactly(3)
            if body == rows[0]:
                seen = -1
                while others != seen:  # Until no other request comes.
                    seen = others
                    await asyncio.sleep(0.3)
            elif body:
                others += 1
            text = body + reply if body else b""
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
            await writer.drain()

    async def scenario() -> InstanceResult:
        await write_object(bucket, "bkt", "in/a", b"\n".join(rows))
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        request = request_for(BatchStrategy="SingleRecord", MaxConcurrentTransforms=4)
        job = job_for(request, [Container(url=url)])
        spec = InstanceSpec(
            job=job, instance_id="i-1", instance_index=0, instance_count=1, started_at=0
        )
        async with server:
            return await run_instance(spec, storage=bucket, log=MemoryLog(), stop=asyncio.Event())

    assert asyncio.run(scenario()).ok
    assert seen == meanwhile
    assert _output(bucket) == b"".join(row + reply + b"\n" for row in rows)
