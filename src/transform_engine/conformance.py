"""Runs conformance vectors: `python -m transform_engine.conformance PATH/vectors.json`.

Each vector is a job of its own through the same code as any other: the agent, real files, and a
real model server process on loopback for each container. One JSON line a vector, then the count.

A vector passes if everything it expects holds, or if everything of one of its `alternatives` does
(told in `why`). Expectations this runner does not know are named in `why` as not checked.

Line ends. In the vectors at hand no text ends in a line end, not even where the vector speaks of
one ("LF after every result, the last one included" expects `ab\\ncd`; an input of seven bytes is
expected to have eight): they were lost when the file was written. So a vector none of whose texts
ends in one is read as written first, and if that fails, with the final line ends put back into its
inputs, its scripted replies, or both; and its texts are compared without final line ends. A vector
with any final line end is taken by the letter. Base64 always is.
"""

import asyncio
import base64
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import uvloop

from transform_engine.agent import run_instance
from transform_engine.conformance_model import RULE, behaviours
from transform_engine.data_log import MemoryLog
from transform_engine.job import JobResult, summarise
from transform_engine.objects import no_objects_message
from transform_engine.spec import Container, InstanceSpec, JobSpec
from transform_engine.storage import FolderStorage, split_uri, write_object
from transform_request import InvalidRequest, validate, validate_model
from transform_request.members import REQUEST, Group

Vector = Mapping[str, Any]
_BUCKET = "bkt"
_REGION = "us-east-1"
_ACCOUNT = "123456789012"
_MODEL = Path(__file__).with_name("conformance_model.py")
_AT_A_TIME = 4
_PING_TIMEOUT_S = 3.0
_HOLD_S = 0.03
_VECTOR_TIMEOUT_S = 60.0
_LF = "\n"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a vector went."""

    id: str
    ok: bool
    why: str


@dataclass(slots=True)
class Observed:
    """What a run of a vector did."""

    result: JobResult | None = None
    refusal: tuple[str, str] | None = None  # code and message
    outputs: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # written outside the output path
    calls: list[dict[str, Any]] = field(default_factory=list)
    inputs: dict[tuple[str, str], int] = field(default_factory=dict)  # inodes, before the run
    environments: list[dict[str, str]] = field(default_factory=list)
    agent_lines: list[str] = field(default_factory=list)
    container_lines: list[str] = field(default_factory=list)
    settings: list[dict[str, Any]] = field(default_factory=list)
    objects_per_instance: list[int] = field(default_factory=list)
    unordered: bool = False  # requests of one object may overtake each other


# What a vector says ------------------------------------------------------------------------------


def _texts(vector: Any) -> Iterator[str]:
    """Every text that stands for bytes in a vector."""
    if isinstance(vector, Mapping):
        for name, value in vector.items():
            if name in ("utf8", "body", "match_body", "request") and isinstance(value, str):
                yield value
            elif name == "generate":
                yield value.get("terminator", "")
            else:
                yield from _texts(value)
    elif isinstance(vector, list):
        for value in vector:
            yield from _texts(value)


def _lost_line_ends(vector: Vector) -> bool:
    return not any(text.endswith("\n") for text in _texts(vector))


def _with_line_end(text: str) -> str:
    if not text or text.endswith("\n"):
        return text
    return text + ("\r\n" if "\r\n" in text else "\n")


def _bytes(part: Mapping[str, Any], *, line_end: bool = False) -> bytes:
    """Return the bytes that a vector gives as utf8, base64, generate or json."""
    if "base64" in part:
        return base64.b64decode(str(part["base64"]))
    if "generate" in part:
        made = part["generate"]
        # The lines are separated in any case: the terminator says how the last one ends.
        end = made.get("terminator") or (_LF if line_end else "")
        lines: list[str] = [line["char"] * line["n"] for line in made["lines"]]
        return f"{(end or _LF).join(lines)}{end}".encode()
    if "json" in part:
        return json.dumps(part["json"]).encode()
    text = part.get("utf8", "")
    return (_with_line_end(text) if line_end else text).encode()


def _leaf_paths(group: Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, kind in group.members.items():
        if isinstance(kind, Group):
            yield from _leaf_paths(kind, (*path, name))
        elif path:
            yield name, path


# KmsKeyId stands for the output's; the members of these groups are given with their group.
_LEAVES = {
    name: path
    for name, path in reversed([*_leaf_paths(REQUEST)])
    if path[0] in ("TransformInput", "TransformOutput", "TransformResources")
}


def request_of(vector: Vector) -> dict[str, Any]:
    """Return the CreateTransformJob request of a vector's configuration."""
    config = {
        "S3DataType": "S3Prefix",
        "S3Uri": f"s3://{_BUCKET}/in/",
        "S3OutputPath": f"s3://{_BUCKET}/out",
        "InstanceType": "ml.m5.large",
        "InstanceCount": 1,
        "TransformJobName": "conformance",
        "ModelName": "model",
        **vector["config"],
    }
    request: dict[str, Any] = {}
    for name, value in config.items():
        at = request
        for step in _LEAVES.get(name, ()):
            at = at.setdefault(step, {})
        at[name] = {**at[name], **value} if isinstance(at.get(name), dict) else value
    return request


def _model_of(vector: Vector) -> dict[str, Any] | None:
    """Return the model as the account has it; None if there is none of that name.

    What is the matter with a model is told in a vector's words only. One without a model behaviour
    that names a model, and says no more of it, is about a model that is not there.
    """
    plain = {"PrimaryContainer": {"Image": "image"}}
    if vector.get("model") is not None:
        return plain
    about = json.dumps([vector.get("title"), vector["expected_job"].get("message_contains")])
    if re.search(r"\bModelDataSource\b", about):
        return {"PrimaryContainer": {"ModelDataSource": {"S3DataSource": {}}}}
    if re.search(r"\bmulti-?model\b", about, re.IGNORECASE):
        return {"PrimaryContainer": {"Mode": "MultiModel"}}
    if re.search(r"\bDirect\b", about):
        return {"Containers": [{}, {}], "InferenceExecutionConfig": {"Mode": "Direct"}}
    return None if "ModelName" in vector["config"] else plain


# Running one -------------------------------------------------------------------------------------


async def _run(
    vector: Vector, legend: Mapping[str, str], folder: Path, *, inputs: bool, replies: bool
) -> Observed:
    """Run a vector; `inputs` and `replies` say where final line ends are put back."""
    observed = Observed()
    request = request_of(vector)
    storage = FolderStorage(folder / "s3")
    for part in vector["input"]:
        bucket, key = part.get("bucket", _BUCKET), part["key"]
        if not _has_body(part):
            raise ValueError(f"the input {key} must have utf8, base64 or generate, got {part}")
        await write_object(storage, bucket, key, _bytes(part, line_end=inputs))
        observed.inputs[bucket, key] = storage.path(bucket, key).stat().st_ino
    observed.refusal = _refusal(vector, request, storage)
    if observed.refusal is None:
        await _instances(vector, legend, request, storage, folder, observed, replies=replies)
    _collect(request, storage, observed)
    return observed


def _refusal(
    vector: Vector, request: Mapping[str, Any], storage: FolderStorage
) -> tuple[str, str] | None:
    """What CreateTransformJob answers, if it refuses.

    Of the account a vector tells only what it expects of it: an earlier job of the name, a quota
    that is used up.
    """
    try:
        validate(request, foresee=False)
        model = _model_of(vector)
        if model is None:
            arn = f"arn:aws:sagemaker:{_REGION}:{_ACCOUNT}:model/{request['ModelName']}"
            return "ValidationException", f'Could not find model "{arn}".'
        validate_model(model)
    except InvalidRequest as error:
        return "ValidationException", str(error)
    job = f"arn:aws:sagemaker:{_REGION}:{_ACCOUNT}:transform-job/{request['TransformJobName']}"
    instance_type = request["TransformResources"]["InstanceType"]
    match vector["expected_job"].get("code"):
        case "ResourceInUse":
            return "ResourceInUse", (
                "Transform job names must be unique within an AWS account and region, and a "
                f"transform job with this name already exists ({job})"
            )
        case "ResourceLimitExceeded":
            count = request["TransformResources"]["InstanceCount"]
            return "ResourceLimitExceeded", (
                f"The account-level service limit '{instance_type} for transform job usage' is 0 "
                "Instances, with current utilization of 0 Instances and a request delta of "
                f"{count} Instances. Please use AWS Service Quotas to request an increase for "
                "this quota."
            )
    uri = request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    if next(storage.list(*split_uri(uri)), None) is None:
        role = f"arn:aws:iam::{_ACCOUNT}:role/role"
        return "ValidationException", no_objects_message(uri, region=_REGION, role=role)
    return None


async def _instances(
    vector: Vector,
    legend: Mapping[str, str],
    request: Mapping[str, Any],
    storage: FolderStorage,
    folder: Path,
    observed: Observed,
    *,
    replies: bool,
) -> None:
    model = vector.get("model") or {}
    script = [_restored(rule) if replies else rule for rule in model.get("script", ())]
    containers = max((rule.get("container", 1) for rule in script), default=1)
    containers = max(containers, model.get("containers", 1))
    count = request["TransformResources"]["InstanceCount"]
    environment = (vector.get("expected_other") or {}).get("model_environment", {})
    specs = []
    for index in range(count):
        home = folder / f"instance-{index}"
        home.mkdir()
        commands = []
        for number in range(1, containers + 1):
            config = home / f"container-{number}.json"
            config.write_text(json.dumps(_server_config(vector, legend, script, number)))
            records = home / f"container-{number}.jsonl"
            program = (sys.executable, "-IS", str(_MODEL), str(config), str(records))
            commands.append(Container(command=program, cwd=str(home), environment=environment))
        job = JobSpec(
            job_name=request["TransformJobName"],
            request=request,
            containers=tuple(commands),
            work_dir=str(home),
            s3_folder=str(folder / "s3"),
            ping_timeout_s=_PING_TIMEOUT_S,
            server_stop_timeout_s=1,
        )
        specs.append(
            InstanceSpec(
                job=job,
                instance_id=f"i-{index}",
                instance_index=index,
                instance_count=count,
                started_at=int(time.time()),
            )
        )
    logs = [MemoryLog() for _ in specs]
    events: list[list[Mapping[str, Any]]] = [[] for _ in specs]
    results = await asyncio.gather(
        *(
            run_instance(spec, storage=storage, log=log, stop=asyncio.Event(), on_event=said.append)
            for spec, log, said in zip(specs, logs, events, strict=True)
        )
    )
    observed.result = summarise(results)
    for log, said in zip(logs, events, strict=True):
        observed.agent_lines += log.agent_lines
        observed.container_lines += [line for _, line in log.container_lines]
        observed.settings += [dict(event) for event in said if event["event"] == "started"]
        observed.objects_per_instance.append(sum(event["event"] == "object" for event in said))
    for records in sorted(folder.glob("instance-*/container-*.jsonl")):
        for line in records.read_text().splitlines():
            record = json.loads(line)
            if "env" in record:
                observed.environments.append(record["env"])
            else:
                observed.calls.append({**record, "instance": records.parent.name})
    observed.calls.sort(key=lambda call: call["at"])
    concurrent = max((s["MaxConcurrentTransforms"] for s in observed.settings), default=1)
    observed.unordered = concurrent > 1 or count > 1


def _restored(rule: Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(rule.get("body"), str):
        return {**rule, "body": _with_line_end(rule["body"])}
    return rule


def _server_config(
    vector: Vector, legend: Mapping[str, str], script: Sequence[Mapping[str, Any]], number: int
) -> dict[str, Any]:
    model, other = vector.get("model") or {}, vector.get("expected_other") or {}
    by_path: dict[str, list[Mapping[str, Any]]] = {}
    for rule in script:
        by_path.setdefault(rule.get("path", "/invocations").split(" ")[-1], []).append(rule)
    # The legend spells this reply out, so it is taken from there.
    spelled = re.search(r'\{"class".*\}', legend.get("json_class", ""))
    ping = model.get("ping", other.get("ping", by_path.get("/ping")))
    if ping is not None:
        ping = [
            each if isinstance(each, dict) else {"status": each}
            for each in (ping if isinstance(ping, list) else [ping])
        ]
    elif "respond to ping" in str(vector["expected_job"]):
        ping = [{"status": 500}]  # The vector's only word about how its container behaves.
    return {
        "container": number,
        "behaviour": model.get("behaviour"),
        "script": by_path.get("/invocations", []),
        "class_reply": spelled.group(0) if spelled else '{"class":"<=50K","p":0.5}',
        "execution_parameters": model.get(
            "execution_parameters", other.get("execution_parameters")
        ),
        "ping": ping,
        # Requests that overlap are only seen if they last a moment.
        "hold_s": _HOLD_S if "max_open_requests_per_instance" in other else 0,
    }


def _collect(request: Mapping[str, Any], storage: FolderStorage, observed: Observed) -> None:
    """Read everything that the run wrote."""
    out = ("", "")
    if observed.refusal is None:
        out_bucket, out_prefix = split_uri(request["TransformOutput"]["S3OutputPath"])
        out = (out_bucket, out_prefix.removesuffix("/") + "/" if out_prefix else "")
    root = storage.root
    for bucket in sorted(path.name for path in root.iterdir()) if root.is_dir() else ():
        for found in storage.list(bucket, ""):
            path = storage.path(bucket, found.key)
            # What was there before is written anew as another file.
            if observed.inputs.get((bucket, found.key)) != path.stat().st_ino:
                content = path.read_bytes()
                is_output = bucket == out[0] and found.key.startswith(out[1])
                (observed.outputs if is_output else observed.objects)[found.key] = content


# Holding it against what is expected -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Check:
    vector: Vector
    observed: Observed
    loose: bool  # final line ends of texts were lost

    def problems(self) -> Iterator[str]:
        """Everything expected that does not hold."""
        vector, expected = self.vector, self.vector["expected_job"]
        if expected["status"] is None:
            yield from self._refused(expected)
        else:
            yield from self._ended(expected)
        if "expected_requests" in vector and not _is_open(vector["expected_requests"]):
            yield from self._requests(vector["expected_requests"])
        if "expected_output" in vector and not _is_open(vector["expected_output"]):
            yield from self._outputs(vector["expected_output"])
        for name, value in (vector.get("expected_other") or {}).items():
            yield from self._other(name, value)

    def unchecked(self) -> list[str]:
        """Names of expectations that this runner does not know."""
        vector = self.vector
        return [
            *(f"expected_job.{name}" for name in vector["expected_job"] if name not in _JOB),
            *(
                f"expected_other.{name}"
                for name, value in (vector.get("expected_other") or {}).items()
                if name not in _OTHER and not _is_open(value)
            ),
            *(name for name in vector if name.startswith("expected_") and name not in _VECTOR),
            *self._unknown_of_model(),
            *(
                f"the content of {part.get('key') or part.get('object')}"
                for name in ("expected_requests", "expected_output")
                if name in vector and not _is_open(vector[name])
                for part in vector[name]
                if not _has_body(part) and not part.get("absent")
            ),
            *(
                f"{name} {vector[name]}"
                for name, known in (("request_match", _REQUEST_MATCH), ("output_match", _MATCH))
                if vector.get(name, "exact") not in known
            ),
        ]

    def _unknown_of_model(self) -> Iterator[str]:
        model = self.vector.get("model") or {}
        behaviour = model.get("behaviour")
        if behaviour not in (None, "scripted", *behaviours(b"")):
            yield f"model.behaviour {behaviour}"
        names = {name for rule in model.get("script", ()) for name in rule}
        yield from (f"model.script.{name}" for name in sorted(names - RULE))

    def _refused(self, expected: Mapping[str, Any]) -> Iterator[str]:
        refusal, when = self.observed.refusal, expected.get("when", "CreateTransformJob")
        if refusal is None:
            failed = self.observed.result is not None and self.observed.result.status == "Failed"
            if failed and "Create" not in str(when):
                yield from self._contains(expected, self._told())
                return
            yield f"must be refused, got {self._status()}"
            return
        code, message = refusal
        wanted = expected.get("code", code)
        if wanted != code and not _is_open(wanted):
            yield f"must be refused with {expected['code']}, got {code}: {message}"
        yield from self._contains(expected, message)

    def _status(self) -> str:
        if self.observed.refusal is not None:
            return f"refused: {self.observed.refusal[1]}"
        result = self.observed.result
        return f"{result.status} ({result.failure_reason})" if result else "nothing"

    def _told(self) -> str:
        result = self.observed.result
        told = [result.failure_reason or "", result.detail or ""] if result else []
        return "\n".join((*told, *self.observed.agent_lines))

    def _contains(self, expected: Mapping[str, Any], text: str) -> Iterator[str]:
        for part in _list(expected.get("message_contains", [])):
            if part not in text and not _is_open(part):
                yield f"message must contain {part!r}, got {text!r}"

    def _ended(self, expected: Mapping[str, Any]) -> Iterator[str]:
        result = self.observed.result
        status = expected["status"]
        if _is_open(status) and self.observed.refusal is not None:
            return
        if result is None or not (_is_open(status) or result.status == status):
            yield f"job must be {expected['status']}, got {self._status()}"
            return
        reason = result.failure_reason or ""
        wanted = expected.get("failure_reason")
        if wanted is not None and not _is_open(wanted) and reason != wanted:
            yield f"failure_reason must be {wanted!r}, got {reason!r}"
        prefix = expected.get("failure_reason_prefix", "")
        if not _is_open(prefix) and not reason.startswith(prefix):
            yield f"failure_reason must start with {prefix!r}, got {reason!r}"
        yield from self._contains(expected, self._told())
        yield from self._log(expected.get("data_log_contains", []))

    def _log(self, parts: Any) -> Iterator[str]:
        for part in _list(parts):
            if not (_is_open(part) or any(part in line for line in self.observed.agent_lines)):
                yield f"data-log must contain {part!r}, got {self.observed.agent_lines}"

    def _same(self, expected: Mapping[str, Any], got: bytes, *, line_feed: bool = True) -> bool:
        if not _has_body(expected):
            return True
        wanted = _bytes(expected)
        if "base64" not in expected and self.loose:
            return wanted.rstrip(b"\r\n") == got.rstrip(b"\r\n")
        if not line_feed:
            return wanted.removesuffix(b"\n") == got.removesuffix(b"\n")
        return wanted == got

    def _requests(self, expected: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        exact = self.vector.get("request_match", "exact") != "modulo_trailing_lf"
        calls = [call for call in self.observed.calls if call["call"] == "POST /invocations"]
        named = any("container" in each for each in expected)
        calls = [call for call in calls if named or call["container"] == 1]
        if self._in_turns(_by_object(expected), calls, exact=exact):
            return
        left = [*calls]
        for number, wanted in enumerate(expected):
            candidates = left if self.observed.unordered or named else left[:1]
            for call in candidates:
                if self._is_request(wanted, call, exact=exact):
                    left.remove(call)
                    break
            else:
                bodies = [base64.b64decode(call["body"])[:80] for call in calls]
                yield f"request {number} must be {_bytes(wanted)[:80]!r}, got {bodies}"
                return
        if left:
            yield f"requests must be {len(expected)}, got {len(calls)}"

    def _is_request(
        self, wanted: Mapping[str, Any], call: Mapping[str, Any], *, exact: bool
    ) -> bool:
        body = base64.b64decode(call["body"])
        return self._same(wanted, body, line_feed=exact) and _head_matches(wanted, call)

    def _in_turns(
        self,
        objects: Sequence[Sequence[Mapping[str, Any]]],
        calls: Sequence[Mapping[str, Any]],
        *,
        exact: bool,
    ) -> bool:
        """Whether the calls are each object's requests in order, the objects in any order."""
        if not objects:
            return not calls
        for number, wanted in enumerate(objects):
            first, others = calls[: len(wanted)], [*objects[:number], *objects[number + 1 :]]
            if (
                len(first) == len(wanted)
                and all(
                    self._is_request(*pair, exact=exact) for pair in zip(wanted, first, strict=True)
                )
                and self._in_turns(others, calls[len(wanted) :], exact=exact)
            ):
                return True
        return False

    def _outputs(self, expected: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        outputs = self.observed.outputs
        wanted = {part["key"]: part for part in expected if not part.get("absent")}
        if {*wanted} != {*outputs}:
            yield f"outputs must be {sorted(wanted)}, got {sorted(outputs)}"
            return
        for key, part in wanted.items():
            if not self._output_matches(part, outputs[key]):
                yield f"{key} must be {_bytes(part)[:200]!r}, got {outputs[key][:200]!r}"

    def _output_matches(self, part: Mapping[str, Any], got: bytes) -> bool:
        if not _has_body(part):
            return True
        match self.vector.get("output_match", "bytes"):
            case "json":
                return _json_equal([_bytes(part)], [got])
            case "jsonlines":
                return _json_equal(_bytes(part).splitlines(), got.splitlines())
            case "template":
                other = self.vector.get("expected_other") or {}
                return _Template(other.get("templates", {})).matches(_bytes(part), got)
            case "modulo_trailing_lf":
                return self._same(part, got, line_feed=False)
            case _:
                return self._same(part, got)

    def _other(self, name: str, value: Any) -> Iterator[str]:
        observed = self.observed
        if _is_open(value):
            return
        match name:
            case "effective":
                for said in observed.settings or [{}]:
                    for member, wanted in value.items():
                        if said.get(member) != wanted and not _is_open(wanted):
                            yield f"effective {member} must be {wanted}, got {said.get(member)}"
            case "env":
                for variable, wanted in value.items():
                    for environment in observed.environments or [{}]:
                        got = environment.get(variable)
                        if got != wanted and not _is_open(wanted):
                            yield f"{variable} must be {wanted!r}, got {got!r}"
            case "env_absent" | "absent_env":
                for variable in _list(value):
                    if any(variable in environment for environment in observed.environments):
                        yield f"{variable} must not be set, got it"
            case "call_order":
                order = [*dict.fromkeys(call["call"] for call in observed.calls)]
                if order != value:
                    yield f"first calls must be {value}, got {order}"
            case "max_open_requests_per_instance":
                most = max((call["open"] for call in observed.calls), default=0)
                if most > value:
                    yield f"open requests must be at most {value}, got {most}"
            case "objects_per_instance":
                if sorted(shares := observed.objects_per_instance) != sorted(value):
                    yield f"objects per instance must be {value}, got {shares}"
            case "output_object_count":
                if len(observed.outputs) + len(observed.objects) != value:
                    written = sorted((*observed.outputs, *observed.objects))
                    yield f"written objects must be {value}, got {written}"
            case "absent_output":
                for key in _list(value):
                    if key in observed.outputs or key in observed.objects:
                        yield f"{key} must not be written, got it"
            case "request_count" | "attempts" | "invocations":
                count = sum(call["call"] == "POST /invocations" for call in observed.calls)
                if isinstance(value, int) and count != value:
                    yield f"invocations must be {value}, got {count}"
            case "data_log_contains":
                yield from self._log(value)
            case "data_log_regex":
                for pattern in _list(value):
                    count = sum(bool(re.search(pattern, line)) for line in observed.agent_lines)
                    if count != len(observed.objects_per_instance):
                        yield f"data-log must match {pattern!r} once, got {observed.agent_lines}"
            case "capture_prefixes":
                for prefix in _list(value):
                    if not any(_hour_pattern(prefix).match(key) for key in observed.objects):
                        yield f"a capture must be under {prefix}, got {sorted(observed.objects)}"
            case "capture_manifest_lines":
                for side, entries in value.items():
                    wanted = [_entry(line) for line in entries]
                    found = [
                        json.loads(content)
                        for key, content in observed.objects.items()
                        if f"/{side}/" in key
                    ]
                    if wanted not in found:
                        yield f"the {side} manifest must be {wanted}, got {found}"


_REQUEST_MATCH = {"exact", "modulo_trailing_lf"}
_MATCH = {"exact", "bytes", "json", "jsonlines", "template", "modulo_trailing_lf"}
_VECTOR = {"expected_requests", "expected_output", "expected_job", "expected_other"}
_JOB = {
    "status",
    "rejected",
    "when",
    "code",
    "message_contains",
    "failure_reason",
    "failure_reason_prefix",
    "data_log_contains",
}
#: Members of expected_other that are checked, or that say how to arrange or read the vector.
_OTHER = {
    "effective",
    "env",
    "env_absent",
    "absent_env",
    "call_order",
    "max_open_requests_per_instance",
    "objects_per_instance",
    "output_object_count",
    "absent_output",
    "request_count",
    "attempts",
    "invocations",
    "data_log_contains",
    "data_log_regex",
    "capture_prefixes",
    "capture_manifest_lines",
    "execution_parameters",
    "model_environment",
    "ping",
    "templates",
}


def _is_open(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("UNK")


def _has_body(part: Mapping[str, Any]) -> bool:
    return any(name in part for name in ("utf8", "base64", "generate", "json"))


def _by_object(requests: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    found: dict[Any, list[Mapping[str, Any]]] = {}
    for request in requests:
        found.setdefault(request.get("object"), []).append(request)
    return [*found.values()]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _head_matches(wanted: Mapping[str, Any], call: Mapping[str, Any]) -> bool:
    headers = {name.lower(): value for name, value in wanted.get("headers", {}).items()}
    for member, header in (("content_type", "content-type"), ("accept", "accept")):
        if member in wanted:
            headers[header] = wanted[member]
    if "chunked" in wanted:
        headers["transfer-encoding"] = "chunked" if wanted["chunked"] else None
    container = wanted.get("container", call["container"])
    return container == call["container"] and all(
        call["headers"].get(name) == value for name, value in headers.items()
    )


def _json_equal(expected: Sequence[bytes], got: Sequence[bytes]) -> bool:
    try:
        wanted, found = ([json.loads(each) for each in side] for side in (expected, got))
    except ValueError:
        return False
    return _same_json(wanted, found)


def _same_json(expected: Any, got: Any) -> bool:
    """Whether two JSON values are equal; true is no 1, as it is to Python."""
    if isinstance(expected, dict) and isinstance(got, dict):
        return {*expected} == {*got} and all(_same_json(v, got[k]) for k, v in expected.items())
    if isinstance(expected, list) and isinstance(got, list):
        pairs = zip(expected, got, strict=False)
        return len(expected) == len(got) and all(_same_json(*pair) for pair in pairs)
    return isinstance(expected, bool) == isinstance(got, bool) and bool(expected == got)


def _entry(line: str) -> Any:
    return json.loads(line) if line.startswith("{") else line


def _hour_pattern(prefix: str) -> re.Pattern[str]:
    segment = r"(?<![^/])(?:yyyy|mm|dd|hh)(?![^/])"
    return re.compile(re.sub(segment, lambda m: r"\d" * len(m[0]), re.escape(prefix)))


_VARYING = r"<[A-Za-z][A-Za-z0-9_-]*>"


class _Template:
    """Bytes or JSON with `<name>` for what differs from run to run."""

    _KNOWN: ClassVar[Mapping[str, str]] = {
        "<uuid>": r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        "<utc>": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    }

    def __init__(self, described: Mapping[str, str]) -> None:
        self._described = described
        self._found: dict[str, list[str]] = {}

    def matches(self, expected: bytes, got: bytes) -> bool:
        wanted, lines = expected.decode().splitlines(), got.decode().splitlines()
        return (
            len(wanted) == len(lines)
            and all(self._line(*pair) for pair in zip(wanted, lines, strict=True))
            and self._as_described()
        )

    def _line(self, expected: str, got: str) -> bool:
        try:
            return self._value(json.loads(expected), json.loads(got))
        except ValueError:
            return self._text(expected, got)

    def _value(self, expected: Any, got: Any) -> bool:
        if isinstance(expected, dict) and isinstance(got, dict):
            return {*expected} == {*got} and all(
                self._value(value, got[name]) for name, value in expected.items()
            )
        if isinstance(expected, list) and isinstance(got, list):
            pairs = zip(expected, got, strict=False)
            return len(expected) == len(got) and all(self._value(*pair) for pair in pairs)
        if isinstance(expected, str) and isinstance(got, str):
            return self._text(expected, got)
        return _same_json(expected, got)

    def _text(self, expected: str, got: str) -> bool:
        names = re.findall(_VARYING, expected)
        parts = [re.escape(part) for part in re.split(_VARYING, expected)]
        pattern = parts[0] + "".join(
            f"({self._KNOWN.get(re.sub('[0-9]', '', name), '[^,]+')}){part}"
            for name, part in zip(names, parts[1:], strict=True)
        )
        match = re.fullmatch(pattern, got)
        if match is None:
            return False
        for name, value in zip(names, match.groups(), strict=True):
            self._found.setdefault(name, []).append(value)
        return True

    def _as_described(self) -> bool:
        for name, values in self._found.items():
            described = self._described.get(name, "")
            if "another for every" in described and max(Counter(values).values()) > 1:
                return False
            if "the same for every" in described and len({*values}) > 1:
                return False
        return True


# All of them -------------------------------------------------------------------------------------

_EXPECTATIONS = ("expected_requests", "expected_output", "expected_job", "expected_other")


def _alternatives(vector: Vector) -> Iterator[tuple[str, Vector]]:
    for alternative in vector.get("alternatives", ()):
        changed = {name: alternative[name] for name in _EXPECTATIONS if name in alternative}
        if changed:
            # What an alternative leaves out is as in the vector, except requests, which depend.
            rest = {k: v for k, v in vector.items() if k != "expected_requests"}
            yield alternative.get("reading", "alternative"), {**rest, **changed}


async def check_vector(vector: Vector, legend: Mapping[str, str]) -> Verdict:
    """Run one vector and judge it."""
    loose = _lost_line_ends(vector)
    readings = [(False, False)]
    if loose:
        scripted = bool((vector.get("model") or {}).get("script"))
        readings += [(True, False), *([(True, True), (False, True)] if scripted else ())]
    seen: list[Observed] = []
    problems: list[str] = []
    unchecked = ""
    for inputs, replies in readings:
        with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
            try:
                async with asyncio.timeout(_VECTOR_TIMEOUT_S):
                    observed = await _run(
                        vector, legend, Path(folder), inputs=inputs, replies=replies
                    )
            except TimeoutError:
                return Verdict(vector["id"], False, f"must end within {_VECTOR_TIMEOUT_S} s")
        seen.append(observed)
        check = _Check(vector, observed, loose)
        found = [*check.problems()]
        unchecked = ", ".join(check.unchecked())
        unchecked = f"not checked: {unchecked}" if unchecked else ""
        if not found:
            return Verdict(vector["id"], True, unchecked)
        problems = problems or found
    for reading, alternative in _alternatives(vector):
        if any(not [*_Check(alternative, observed, loose).problems()] for observed in seen):
            told = filter(None, (f"as the alternative: {reading}", unchecked))
            return Verdict(vector["id"], True, "; ".join(told))
    return Verdict(vector["id"], False, "; ".join(filter(None, (*problems, unchecked))))


async def check_all(document: Mapping[str, Any]) -> list[Verdict]:
    """Run all vectors of a document, some at a time, and return the verdicts in its order."""
    slots = asyncio.Semaphore(_AT_A_TIME)

    async def one(vector: Vector) -> Verdict:
        async with slots:
            try:
                return await check_vector(vector, document.get("models", {}))
            except Exception as error:  # One malformed vector must not hide the others.
                name = str(vector.get("id", "?")) if isinstance(vector, Mapping) else "?"
                return Verdict(name, False, f"could not be run: {error!r}")

    return await asyncio.gather(*(one(vector) for vector in document["vectors"]))


def main(arguments: list[str]) -> int:
    """Run the vectors of a file and print the verdicts."""
    if len(arguments) != 1:
        print("usage: python -m transform_engine.conformance VECTORS.json", file=sys.stderr)
        return 2
    try:
        document = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"the vectors must be a JSON file, got {error}; check the path", file=sys.stderr)
        return 2
    if not isinstance(document, dict) or not isinstance(document.get("vectors"), list):
        print(
            "the file must be an object with a list of vectors, got something else; check the path",
            file=sys.stderr,
        )
        return 2
    verdicts = uvloop.run(check_all(document))
    for verdict in verdicts:
        line = {"id": verdict.id, "ok": verdict.ok, "why": verdict.why}
        print(json.dumps(line, ensure_ascii=False))
    passed = sum(verdict.ok for verdict in verdicts)
    print(f"{passed} passed, {len(verdicts) - passed} failed")
    return 0 if passed == len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
