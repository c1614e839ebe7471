import json
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from batch_transform_cli import main
from batch_transform_cli.errors import JobRefused
from batch_transform_cli.job.request import (
    Member,
    flag_name,
    local_path,
    members,
    place_uri,
    readings_from,
    request_from,
)
from transform_engine.spec import Readings
from transform_request.members import Choice, Flag, Kind, Listing, Number, Pairs

#: What lets each member stand by itself without breaking a rule between members.
_BASE: dict[str, Any] = {
    "input": "s3://bkt/in/",
    "output": "s3://bkt/out/",
    "content_type": "text/csv",
    "accept": "text/csv",
    "split_type": "Line",
    "assemble_with": "Line",
    "destination_s3_uri": "s3://bkt/capture/",
}


def parsed(*arguments: str) -> dict[str, Any]:
    """Return the members that a command line sets."""
    command: Any = get_command(main.commands)
    parameters = command.commands["run"].make_context("run", [*arguments]).params
    return {name: parameters[name] for member, _ in members() if (name := parameter(member))}


def parameter(member: Member) -> str:
    return flag_name(member).replace("-", "_")


def get(request: Any, member: Member) -> Any:
    for name in member:
        request = request[name]
    return request


def example(member: Member, kind: Kind) -> tuple[list[str], Any]:
    """Return what stands on the command line for a member, and in the request then."""
    flag = f"--{flag_name(member)}"
    match kind:
        case Flag():
            return [flag], True
        case Number(least=least):
            return [flag, str(least + 1)], least + 1
        case Choice(values=values):
            return [flag, values[-1]], values[-1]
        case Pairs():
            return [flag, "A=1", flag, "B=x=y"], {"A": "1", "B": "x=y"}
        case Listing():
            pairs = [{"Key": "team", "Value": "ml"}, {"Key": "b", "Value": ""}]
            return [flag, "team=ml", flag, "b="], pairs
    text = {"InputFilter": "$[1:]", "OutputFilter": "$[0]"}.get(member[-1], "s3://bkt/k")
    if "Uri" not in member[-1] and "Path" not in member[-1] and text.startswith("s3:"):
        text = "text/csv" if member[-1] in ("ContentType", "Accept") else "x1"
    return [flag, text], text


@pytest.mark.parametrize(
    ("member", "kind"), [pytest.param(*each, id=".".join(each[0])) for each in members()]
)
def test_every_member_of_the_api_has_a_flag_that_sets_it(member: Member, kind: Kind) -> None:
    arguments, value = example(member, kind)
    base = [
        text
        for name, given in _BASE.items()
        for text in (f"--{name.replace('_', '-')}", given)
        if name != parameter(member)
    ]
    if member == ("TransformInput", "SplitType"):
        base += ["--batch-strategy", "SingleRecord"]

    request = request_from(None, parsed(*base, *arguments))

    assert get(request, member) == value


def test_no_two_members_share_a_flag() -> None:
    names = [flag_name(member) for member, _ in members()]
    assert len(set(names)) == len(names)
    assert flag_name(("MaxPayloadInMB",)) == "max-payload-in-mb"
    assert flag_name(("ExperimentConfig", "TrialComponentDisplayName")) == (
        "trial-component-display-name"
    )


def test_flags_win_over_the_file_and_the_rest_of_it_stays(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(
        json.dumps(
            {
                "TransformJobName": "nightly",
                "ModelName": "churn",
                "MaxPayloadInMB": 1,
                "TransformInput": {
                    "ContentType": "text/csv",
                    "DataSource": {
                        "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bkt/in/"}
                    },
                },
                "TransformOutput": {"S3OutputPath": "s3://bkt/out/"},
                "TransformResources": {"InstanceType": "ml.c5.xlarge", "InstanceCount": 3},
            }
        )
    )

    request = request_from(path, {"max_payload_in_mb": 7, "output": str(tmp_path), "tags": []})

    assert request["MaxPayloadInMB"] == 7
    assert request["TransformJobName"] == "nightly"
    assert request["TransformResources"]["InstanceCount"] == 3
    assert request["TransformInput"]["ContentType"] == "text/csv"
    assert request["TransformOutput"] == {"S3OutputPath": f"file://{tmp_path}/"}


def test_fails_when_a_path_is_no_text() -> None:
    with pytest.raises(JobRefused, match="a path must be UTF-8, got '/data/"):
        place_uri("/data/\udcff")


def test_a_path_becomes_a_uri_that_says_whether_it_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data 100%é").mkdir()
    assert place_uri("data 100%é") == f"file://{tmp_path}/data%20100%25%C3%A9/"
    assert local_path(place_uri("data 100%é")) == f"{tmp_path}/data 100%é/"
    assert place_uri("data") == f"file://{tmp_path}/data"
    assert place_uri("new", folder=True) == f"file://{tmp_path}/new/"
    assert place_uri("s3://bkt/in") == "s3://bkt/in"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param({}, "--input must say where objects are, got none", id="no input"),
        pytest.param({"input": "a"}, "--output must say where outputs go", id="no output"),
        pytest.param(
            {"input": "ftp://a", "output": "b"}, "must be a path or an s3:// URI", id="scheme"
        ),
        pytest.param(
            {**_BASE, "split_type": "line"}, "SplitType must be one of None, Line", id="choice"
        ),
        pytest.param(
            {**_BASE, "max_payload_in_mb": 101}, "MaxPayloadInMB must be at most 100", id="payload"
        ),
        pytest.param(
            {**_BASE, "join_source": "Input", "assemble_with": None},
            "SplitType must equal TransformOutput.AssembleWith",
            id="rule between members",
        ),
        pytest.param({**_BASE, "environment": ["A"]}, "must be NAME=VALUE, got 'A'", id="pair"),
    ],
)
def test_fails_when_the_api_would_refuse_it(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(JobRefused, match=message):
        request_from(None, flags)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "No such file", id="missing"),
        pytest.param(b"{", "must be a file with a CreateTransformJob request in JSON", id="broken"),
        pytest.param(b"\xff\xfe", "in JSON, got", id="binary"),
        pytest.param(b"[]", "must be a JSON object, got list", id="list"),
        pytest.param(b'{"TransformInput": 3}', "--input must say where", id="no structure"),
    ],
)
def test_fails_when_the_request_file_is_none(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "job.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(JobRefused, match=message):
        request_from(path, {})


def test_readings_are_the_switches_of_the_engine() -> None:
    assert readings_from([]) == Readings()
    assert readings_from(["retry_5xx=false", "bytes_in_mb=1000000"]) == Readings(
        retry_5xx=False, bytes_in_mb=10**6
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retry=1", "--reading must be one of slice_end_included"),
        ("retry_5xx=off", "must be true or false, got 'off'"),
        ("bytes_in_mb=0", "must be a whole number above 0, got '0'"),
        ("retry_5xx", "must be NAME=VALUE"),
    ],
)
def test_fails_when_a_reading_is_none(text: str, message: str) -> None:
    with pytest.raises(JobRefused, match=message):
        readings_from([text])
