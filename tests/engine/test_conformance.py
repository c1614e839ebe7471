import asyncio
import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import transform_engine
from transform_engine.conformance import check_all, main

_MORE: dict[str, Any] = json.loads(
    Path(__file__).with_name("more_vectors.json").read_text(encoding="utf-8")
)
_VECTORS = Path(__file__).resolve().parents[3] / "shared" / "conformance" / "vectors.json"
_CSV = {"ContentType": "text/csv", "Accept": "text/csv", "SplitType": "Line"}

#: A vector by the letter: its texts have their final line ends.
_VECTOR: dict[str, Any] = {
    "id": "own-1",
    "config": {**_CSV, "AssembleWith": "Line", "BatchStrategy": "SingleRecord"},
    "input": [{"key": "in/a.csv", "utf8": "1,2\n3,x\n"}],
    "model": {
        "behaviour": "scripted",
        "script": [
            {"match_body": "1,2", "times": 1, "status": 500},
            {"match_body": "1,2", "status": 200, "body": "3"},
            {"status": 200, "body": "ERROR"},
        ],
    },
    "expected_requests": [
        {"object": "in/a.csv", "utf8": "1,2"},
        {"object": "in/a.csv", "utf8": "1,2"},
        {"object": "in/a.csv", "utf8": "3,x"},
    ],
    "request_match": "exact",
    "expected_output": [{"key": "out/a.csv.out", "utf8": "3\nERROR\n"}],
    "output_match": "bytes",
    "expected_job": {"status": "Completed", "data_log_contains": ["MaxPayloadInMB=6"]},
    "expected_other": {
        "model_environment": {"B": "model"},
        "env": {"B": "model", "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD"},
        "effective": {"MaxConcurrentTransforms": 1},
        "call_order": ["GET /ping", "GET /execution-parameters", "POST /invocations"],
        "objects_per_instance": [1],
        "max_open_requests_per_instance": 1,
        "output_object_count": 1,
        "absent_output": ["out/b.csv.out"],
        "data_log_regex": "BatchStrategy=SINGLE_RECORD$",
    },
}


async def _check(vectors: list[dict[str, Any]]) -> list[tuple[bool, str]]:
    verdicts = await check_all({"models": {}, "vectors": vectors})
    return [(verdict.ok, verdict.why) for verdict in verdicts]


def _check_now(*vectors: dict[str, Any]) -> list[tuple[bool, str]]:
    return asyncio.run(_check([*vectors]))


def _changed(changes: dict[str, Any]) -> dict[str, Any]:
    vector = copy.deepcopy(_VECTOR)
    for dotted, value in changes.items():
        *path, last = dotted.split(".")
        at = vector
        for name in path:
            at = at[int(name)] if isinstance(at, list) else at[name]
        at[last] = value
    return vector


def test_a_vector_passes_when_all_that_it_expects_holds() -> None:
    assert _check_now(_VECTOR) == [(True, "")]


@pytest.mark.parametrize(
    "changes",
    [
        {"expected_requests": [{"utf8": "1,2"}, {"utf8": "3,x"}]},
        {"expected_requests": [{"utf8": "1,2"}, {"utf8": "1,2"}, {"utf8": "3,x\n"}]},
        {"expected_requests": [{"utf8": "3,x"}, {"utf8": "1,2"}, {"utf8": "1,2"}]},
        {"expected_output": [{"key": "out/a.csv.out", "utf8": "3\nERROR"}]},
        {"expected_output": [{"key": "out/b.csv.out", "utf8": "3\nERROR\n"}]},
        {"expected_output": []},
        {"expected_job": {"status": "Failed"}},
        {"expected_job": {"status": None, "rejected": True, "when": "CreateTransformJob"}},
        {"expected_job": {"status": "Completed", "data_log_contains": ["MaxPayloadInMB=7"]}},
        {"expected_other": {"env": {"B": "job"}}},
        {"expected_other": {"env_absent": ["SAGEMAKER_BATCH"]}},
        {"expected_other": {"effective": {"MaxConcurrentTransforms": 2}}},
        {"expected_other": {"call_order": ["GET /execution-parameters", "GET /ping"]}},
        {"expected_other": {"objects_per_instance": [1, 0]}},
        {"expected_other": {"max_open_requests_per_instance": 0}},
        {"expected_other": {"output_object_count": 2}},
        {"expected_other": {"absent_output": ["out/a.csv.out"]}},
        {"expected_other": {"attempts": 2}},
        {"expected_other": {"data_log_regex": "^nothing"}},
        {"expected_other": {"data_log_contains": ["nothing"]}},
        {"expected_other": {"capture_prefixes": ["cap/input/yyyy/"]}},
        {"expected_other": {"capture_manifest_lines": {"input": ["a.csv"]}}},
    ],
    ids=str,
)
def test_a_vector_fails_when_one_expectation_does_not_hold(changes: dict[str, Any]) -> None:
    ((ok, why),) = _check_now(_changed(changes))
    assert not ok
    assert "must" in why


def test_expectations_of_failures_and_refusals_are_checked() -> None:
    failing = _changed(
        {
            "model": {"behaviour": "scripted", "script": [{"status": 400, "body": "no"}]},
            "expected_requests": [{"utf8": "1,2"}],
            "expected_output": [],
            "expected_other": {},
            "expected_job": {
                "status": "Failed",
                "failure_reason": "ClientError: See job logs for more information",
                "data_log_contains": ["bkt/in/a.csv: ClientError: 400"],
            },
        }
    )
    refused: dict[str, Any] = {
        "id": "own-2",
        "config": {**_CSV, "MaxPayloadInMB": 101},
        "input": [],
        "model": None,
        "expected_job": {
            "status": None,
            "code": "ValidationException",
            "message_contains": ["101"],
        },
    }
    good = _check_now(failing, refused)
    assert good == [(True, ""), (True, "")]
    failing["expected_job"]["failure_reason"] = "AlgorithmError"
    refused["expected_job"]["message_contains"] = ["102"]
    assert [ok for ok, _ in _check_now(failing, refused)] == [False, False]


def test_an_alternative_is_enough_and_is_told() -> None:
    output = [{"key": "out/a.csv.out", "utf8": "3\nERROR\n"}]
    changes = {"expected_output": [], "alternatives": [{"reading": "r", "expected_output": output}]}
    assert _check_now(_changed(changes)) == [(True, "as the alternative: r")]


def test_what_the_runner_does_not_know_is_told() -> None:
    vector = _changed({"expected_other": {"colour": "blue"}})
    assert _check_now(vector) == [(True, "not checked: expected_other.colour")]


def test_a_form_that_the_runner_does_not_know_is_told() -> None:
    vector = _changed(
        {
            "request_match": "modulo_case",
            "output_match": "sorted",
            "expected_output": [{"key": "out/a.csv.out", "hex": "33"}],
            "expected_job": {"status": "Completed", "colour": "blue"},
        }
    )
    ((ok, why),) = _check_now(vector)
    assert ok
    vector["model"]["script"][1]["colour"] = "blue"
    assert "model.script.colour" in _check_now(vector)[0][1]
    vector["model"] = {"behaviour": "juggle"}
    ((juggled, told),) = _check_now(vector)
    assert not juggled
    assert "model.behaviour juggle" in told
    for name in ("request_match modulo_case", "output_match sorted", "out/a.csv.out", "colour"):
        assert name in why
    vector["input"] = [{"key": "in/a.csv", "hex": "33"}]
    assert not _check_now(vector)[0][0]


def test_what_a_vector_leaves_open_is_not_judged() -> None:
    changes = {
        "expected_requests": "UNK",
        "expected_output": "UNK (two ways)",
        "expected_job": {"status": "UNK", "failure_reason": "UNK", "data_log_contains": ["UNK"]},
        "expected_other": {"effective": {"MaxPayloadInMB": "UNK"}, "env": {"A": "UNK"}},
    }
    refused = _changed({"config": {**_CSV, "MaxPayloadInMB": 101}, **changes})
    assert [ok for ok, _ in _check_now(_changed(changes), refused)] == [True, True]


def test_a_refusal_must_come_from_the_call_unless_the_vector_says_otherwise() -> None:
    def vector(**job: Any) -> dict[str, Any]:
        failing = {"behaviour": "scripted", "script": [{"status": 400}]}
        return {
            "id": "own-5",
            "config": _CSV,
            "input": [{"key": "in/a", "utf8": "1\n"}],
            "model": failing,
            "expected_job": {"status": None, "rejected": True, **job},
        }

    verdicts = _check_now(vector(), vector(when="CreateTransformJob"), vector(when="run"))
    assert [ok for ok, _ in verdicts] == [False, False, True]


@pytest.mark.parametrize(
    ("order", "ok"), [("abcd", True), ("cdab", True), ("acbd", True), ("badc", False)]
)
def test_the_requests_of_an_object_have_an_order_and_the_objects_have_none(
    order: str, ok: bool
) -> None:
    objects = {"a": "in/1", "b": "in/1", "c": "in/2", "d": "in/2"}
    vector = {
        "id": "own-6",
        "config": {**_CSV, "BatchStrategy": "SingleRecord"},
        "input": [{"key": "in/1", "utf8": "a\nb\n"}, {"key": "in/2", "utf8": "c\nd\n"}],
        "model": {"behaviour": "echo"},
        "expected_requests": [{"object": objects[each], "utf8": each} for each in order],
        "expected_job": {"status": "Completed"},
    }
    assert [each for each, _ in _check_now(vector)] == [ok]


@pytest.mark.parametrize(
    ("expected", "ok"),
    [('{"a":[1.0]}', True), ('{"a":[true]}', False), ('{"a":[1,1]}', False), ("{", False)],
)
def test_json_is_compared_by_value_and_true_is_no_number(expected: str, ok: bool) -> None:
    vector = {
        "id": "own-7",
        "config": {"ContentType": "application/json"},
        "input": [{"key": "in/a", "utf8": '{"a": [1]}\n'}],
        "model": {"behaviour": "echo"},
        "expected_output": [{"key": "out/a.out", "utf8": expected}],
        "output_match": "json",
        "expected_job": {"status": "Completed"},
    }
    assert [each for each, _ in _check_now(vector)] == [ok]


def test_a_malformed_vector_hides_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vectors.json"
    path.write_text(json.dumps({"vectors": [7, {"id": "own-8"}, {**_VECTOR, "input": 7}, _VECTOR]}))
    assert main([str(path)]) == 1
    *verdicts, last = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["ok"] for line in verdicts] == [False, False, False, True]
    assert last == "1 passed, 3 failed"


@pytest.mark.parametrize("content", ["[]", '{"vectors": 7}', "{", None])
def test_fails_when_a_file_holds_no_vectors(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vectors.json"
    if content is not None:
        path.write_text(content)
    assert main([str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_vector_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transform_engine.conformance._VECTOR_TIMEOUT_S", 1.0)
    hanging = {"behaviour": "scripted", "script": [{"hang": True}]}
    assert _check_now(_changed({"model": hanging})) == [(False, "must end within 1.0 s")]


def test_final_line_ends_that_were_lost_from_a_vector_are_put_back_where_needed() -> None:
    def vector(length: str) -> dict[str, Any]:
        return {
            "id": "own-3",
            "config": {"ContentType": "text/csv"},
            "input": [{"key": "in/a", "utf8": "1,2\n3,4"}],
            "model": {"behaviour": "byte_len"},
            "expected_requests": [{"utf8": "1,2\n3,4"}],
            "request_match": "exact",
            "expected_output": [{"key": "out/a.out", "utf8": length}],
            "expected_job": {"status": "Completed"},
        }

    assert [ok for ok, _ in _check_now(*map(vector, "678"))] == [False, True, True]


def test_templates_tell_the_values_apart() -> None:
    def vector(utf8: str, *, ids: str) -> dict[str, Any]:
        return {
            "id": "own-4",
            "config": {
                **_CSV,
                "AssembleWith": "Line",
                "DataCaptureConfig": {
                    "DestinationS3Uri": "s3://bkt/cap",
                    "GenerateInferenceId": True,
                },
            },
            "input": [{"key": "in/a", "utf8": "a\nb\n"}],
            "model": {"behaviour": "const_1"},
            "expected_output": [{"key": "out/a.out", "utf8": utf8}],
            "output_match": "template",
            "expected_job": {"status": "Completed"},
            "expected_other": {
                "templates": {"<uuid>": ids},
                "capture_prefixes": ["cap/input/yyyy/mm/dd/hh/"],
                "capture_manifest_lines": {"input": ['{"prefix":"s3://bkt/in/"}', "a"]},
            },
        }

    right = "1,<uuid>,<utc>\n1,<uuid>,<utc>\n"
    assert _check_now(vector("1,<uuid1>,<job_start>\n1,<uuid2>,<job_start>\n", ids="")) == [
        (True, "")
    ]
    verdicts = _check_now(
        vector(right, ids="another for every record"),
        vector(right, ids="the same for every record"),
        vector("1,<utc>,<uuid>\n1,<uuid>,<utc>\n", ids=""),
        vector("1,<uuid>,<utc>\n", ids=""),
    )
    assert [ok for ok, _ in verdicts] == [True, False, False, False]


def _failed(vectors: list[dict[str, Any]]) -> dict[str, str]:
    verdicts = asyncio.run(check_all({**_MORE, "vectors": vectors}))
    return {verdict.id: verdict.why for verdict in verdicts if not verdict.ok}


def test_what_the_reference_says_holds() -> None:
    assert _failed(_MORE["vectors"]) == {}


def test_what_the_reference_says_holds_where_final_line_ends_were_lost() -> None:
    # Not those whose line ends are what they are about.
    told = re.compile(r'\\n\\n"|"\\n"')
    vectors = [each for each in _MORE["vectors"] if not told.search(json.dumps(each["input"]))]
    mixed = {"own-as-01"}  # One reply of three ends in a line end.
    stripped = [_stripped(each) for each in vectors if each["model"] and each["id"] not in mixed]
    assert _failed(stripped[::2]) == {}


def _stripped(part: Any) -> Any:
    if isinstance(part, dict):
        texts = ("utf8", "body", "match_body", "request", "terminator")
        return {
            name: value.rstrip("\r\n")
            if name in texts and isinstance(value, str)
            else _stripped(value)
            for name, value in part.items()
        }
    return [_stripped(each) for each in part] if isinstance(part, list) else part


def test_what_contradicts_the_reference_fails() -> None:
    wrong = []
    for vector in copy.deepcopy(_MORE["vectors"])[::3]:
        vector.pop("alternatives", None)
        outputs = vector.get("expected_output")
        if vector["expected_job"]["status"] is None:
            vector["expected_job"] = {"status": "Completed"}
        elif outputs and "utf8" in outputs[0]:
            outputs[0]["utf8"] += "1\n"
        else:
            vector["expected_requests"] = [{"object": "in/none", "utf8": "none"}]
        wrong.append(vector)
    assert {*_failed(wrong)} == {vector["id"] for vector in wrong}


@pytest.mark.skipif(not _VECTORS.exists(), reason=f"the vectors are not at {_VECTORS}")
def test_the_vectors_at_hand_hold() -> None:
    source = str(Path(transform_engine.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-m", "transform_engine.conformance", str(_VECTORS)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=source,
        check=False,
    )
    *lines, last = run.stdout.splitlines()
    verdicts = [json.loads(line) for line in lines]
    failed = {verdict["id"] for verdict in verdicts if not verdict["ok"]}
    # dp-021 expects `"low"` of a reply that its file's legend spells `"<=50K"`.
    assert failed <= {"dp-021"}, run.stdout
    assert last == f"{len(verdicts) - len(failed)} passed, {len(failed)} failed"
    assert run.returncode == bool(failed)
