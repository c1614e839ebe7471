"""A CreateTransformJob request from flags, from a file, or from both: flags win.

A flag for each member of the API, derived from the one table of members, so that none is missing.
"""

import copy
import dataclasses
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints
from urllib.parse import quote, unquote

import typer

from batch_transform_cli.errors import JobRefused
from transform_engine.spec import Readings
from transform_request import InvalidRequest, validate
from transform_request.members import REQUEST, Choice, Flag, Group, Kind, Listing, Number, Pairs

Member = tuple[str, ...]

_S3_SOURCE: Member = ("TransformInput", "DataSource", "S3DataSource")
INPUT: Member = (*_S3_SOURCE, "S3Uri")
OUTPUT: Member = ("TransformOutput", "S3OutputPath")
CAPTURE: Member = ("DataCaptureConfig", "DestinationS3Uri")
_PLACES = (INPUT, OUTPUT, CAPTURE)

#: Flags whose name is not their member's, because two members share it or users say it shorter.
_NAMES: Mapping[Member, str] = {
    INPUT: "input",
    OUTPUT: "output",
    ("DataCaptureConfig", "KmsKeyId"): "data-capture-kms-key-id",
}
_HELP: Mapping[Member, str] = {
    INPUT: "Folder (all files below), file, start of file names, or s3:// URI.",
    OUTPUT: "Folder or s3:// URI; each object gets <name>.out there.",
    CAPTURE: "Folder or s3:// URI for the manifests of DataCaptureConfig.",
    (*_S3_SOURCE, "S3DataType"): "What --input names: all that starts so, or a manifest.",
    ("MaxConcurrentTransforms",): "Requests at a time per instance. Default: the server's, else 1.",
    ("MaxPayloadInMB",): "Limit of a request; 0 sends in chunks. Default: the server's, else 6.",
    ("BatchStrategy",): "Records per request. Default: the server's, else MultiRecord.",
    ("ModelClientConfig", "InvocationsTimeoutInSeconds"): "Limit of a request. Default: 600.",
    ("ModelClientConfig", "InvocationsMaxRetries"): "Default: 3.",
    ("TransformInput", "ContentType"): "Sent with every request, such as text/csv.",
    ("TransformInput", "SplitType"): "How an object is cut into records. Default: None.",
    ("TransformInput", "CompressionType"): "Default: None.",
    ("TransformOutput", "Accept"): "Sent with every request, such as text/csv.",
    ("TransformOutput", "AssembleWith"): "Line: a line feed after each result. Default: None.",
    ("TransformOutput", "KmsKeyId"): "The key that S3 encrypts outputs with.",
    ("DataProcessing", "InputFilter"): "JSONPath: what of a record the model gets. Default: $.",
    ("DataProcessing", "OutputFilter"): "JSONPath: what of a result is written. Default: $.",
    ("DataProcessing", "JoinSource"): "Input: results beside their records. Default: None.",
    ("DataCaptureConfig", "GenerateInferenceId"): "Give each result an id and a time.",
    ("DataCaptureConfig", "KmsKeyId"): "The key that S3 encrypts the manifests with.",
    ("Environment",): "A variable of the model server. Repeatable.",
    ("TransformResources", "InstanceCount"): (
        "Agents, each with a model server; at most one a CPU runs here. Default: 1."
    ),
    ("TransformJobName",): "Default: run- and the time.",
}
_NO_EFFECT = "Checked; no effect on this machine."
#: What the API demands and this machine has no use for.
_REQUIRED_ELSEWHERE: Mapping[Member, Any] = {
    ("ModelName",): "local",
    (*_S3_SOURCE, "S3DataType"): "S3Prefix",
    ("TransformResources", "InstanceType"): "ml.m5.large",
    ("TransformResources", "InstanceCount"): 1,
}


def members(kind: Kind = REQUEST, above: Member = ()) -> Iterator[tuple[Member, Kind]]:
    """Every member of the request that is no structure, by its path."""
    if isinstance(kind, Group):
        for name, part in kind.members.items():
            yield from members(part, (*above, name))
    else:
        yield above, kind


def flag_name(member: Member) -> str:
    """Return a member's flag without dashes: `max-payload-in-mb` of MaxPayloadInMB."""
    return _NAMES.get(member) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", member[-1]).lower()


_BY_PARAMETER = {flag_name(member).replace("-", "_"): member for member, _ in members()}


def with_member_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command's `**flags` be a flag of each member; those that are not given are None."""
    own = signature(command)
    declared = [each for each in own.parameters.values() if each.kind != Parameter.VAR_KEYWORD]
    flags = [_parameter(member, kind) for member, kind in members()]
    places = [each for each in flags if each.name in ("input", "output")]
    others = [each for each in flags if each not in places]
    command.__signature__ = own.replace(parameters=[*places, *declared, *others])  # type: ignore[attr-defined]
    return command


def completing(values: Iterable[str]) -> Callable[[str], list[str]]:
    """Return what completes the start of a value in a shell."""

    def complete(incomplete: str) -> list[str]:
        return [value for value in sorted(values) if value.startswith(incomplete)]

    return complete


def _parameter(member: Member, kind: Kind) -> Parameter:
    name = flag_name(member)
    metavar: str | None = "WHERE" if member in _PLACES else "TEXT"
    value: Any = str | None
    match kind:
        case Flag():
            value, metavar = bool | None, None
        case Number():
            value, metavar = int | None, "N"
        case Pairs() | Listing():
            value, metavar = list[str] | None, "NAME=VALUE"
        case Choice(values=values):
            metavar = "|".join(values) if len(values) <= 8 else values[0]
    spelled = f"--{name}/--no-{name}" if isinstance(kind, Flag) else f"--{name}"
    option = typer.Option(
        spelled,
        metavar=metavar,
        help=_HELP.get(member, _NO_EFFECT),
        autocompletion=completing(kind.values) if isinstance(kind, Choice) else None,
    )
    return Parameter(
        name.replace("-", "_"),
        Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[value, option],
    )


def request_from(path: Path | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request of a file with the flags in it, valid and with `file://` URIs.

    :param flags: by parameter name; None is not given.
    :raises JobRefused: it is none that CreateTransformJob would take.
    """
    request = _read(path) if path is not None else {}
    for parameter, value in flags.items():
        # typer gives an empty list for a repeatable flag that is not there.
        if value is not None and value != []:
            _set(request, _BY_PARAMETER[parameter], _value(parameter, value))
    for member, name in ((INPUT, "--input"), (OUTPUT, "--output")):
        if _get(request, member) is None:
            raise JobRefused(
                f"{name} must say where {'objects are' if name == '--input' else 'outputs go'}, "
                f"got none; give a folder or an s3:// URI"
            )
    for member, default in _REQUIRED_ELSEWHERE.items():
        if _get(request, member) is None:
            _set(request, member, default)
    request.setdefault("TransformJobName", time.strftime("run-%Y%m%d-%H%M%S"))
    try:
        validate(_as_in_s3(request))
    except InvalidRequest as error:
        raise JobRefused(*error.problems) from error
    return request


def _read(path: Path) -> dict[str, Any]:
    try:
        request = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise JobRefused(
            f"--request must be a file with a CreateTransformJob request in JSON, got {path}: "
            f"{error}; write one, or give flags"
        ) from error
    if not isinstance(request, dict):
        raise JobRefused(
            f"a CreateTransformJob request must be a JSON object, got {type(request).__name__} "
            f"in {path}; write its members"
        )
    return request


def _get(request: Mapping[str, Any], member: Member) -> Any:
    value: Any = request
    for name in member:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _set(request: dict[str, Any], member: Member, value: Any) -> None:
    *above, last = member
    for name in above:
        part = request.setdefault(name, {})
        if not isinstance(part, dict):
            return  # Not a structure: the rules say so in their words.
        request = part
    request[last] = value


def _value(parameter: str, value: Any) -> Any:
    member = _BY_PARAMETER[parameter]
    if member in _PLACES:
        return place_uri(value, folder=member != INPUT)
    if member == ("Environment",):
        return dict(_pair("--environment", text) for text in value)
    if member == ("Tags",):
        pairs = [_pair("--tags", text) for text in value]
        return [{"Key": key, "Value": text} for key, text in pairs]
    return value


def _pair(flag: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise JobRefused(f"{flag} must be NAME=VALUE, got {text!r}; give both")
    return name, value


def place_uri(text: str, *, folder: bool = False) -> str:
    """Return the URI of what a user names: URIs stay, paths become `file://` ones.

    A folder's URI ends in `/`, so that it is the start of what is below it and of nothing else.

    :param folder: the path is a folder, also when it is not there yet.
    """
    scheme, separator, _ = text.partition("://")
    if separator:
        if scheme not in ("s3", "file"):
            raise JobRefused(
                f"a place must be a path or an s3:// URI, got {text!r}; give one of these"
            )
        return text
    path = os.path.abspath(os.path.expanduser(text))
    if folder or text.endswith("/") or os.path.isdir(path):
        path = path.rstrip("/") + "/"
    try:
        return f"file://{quote(path)}"
    except UnicodeEncodeError as error:
        raise JobRefused(f"a path must be UTF-8, got {path!r}; rename it") from error


def local_path(uri: str) -> str | None:
    """Return the path of a `file://` URI; None of another one."""
    return unquote(uri.removeprefix("file://")) if uri.startswith("file:///") else None


def _as_in_s3(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the request as it would be sent to AWS: local places stand in a bucket."""
    sent = copy.deepcopy(dict(request))
    for member in _PLACES:
        uri = _get(sent, member)
        if isinstance(uri, str) and (path := local_path(uri)) is not None:
            _set(sent, member, f"s3://local{path}")
    return sent


def readings_from(texts: Sequence[str]) -> Readings:
    """Read `NAME=VALUE` switches for what no source tells about the service.

    :raises JobRefused: a name or a value is none of the switches'.
    """
    kinds = get_type_hints(Readings)
    chosen: dict[str, Any] = {}
    for text in texts:
        name, value = _pair("--reading", text)
        if name not in kinds:
            raise JobRefused(f"--reading must be one of {', '.join(kinds)}, got {name!r}; name one")
        chosen[name] = _reading(name, kinds[name], value)
    return Readings(**chosen)


def _reading(name: str, kind: Any, text: str) -> Any:
    if kind is int:
        if text.isascii() and text.isdecimal() and int(text):
            return int(text)
        raise JobRefused(f"--reading {name} must be a whole number above 0, got {text!r}; give one")
    values = {"true": True, "false": False} if kind is bool else {v: v for v in get_args(kind)}
    if text not in values:
        raise JobRefused(
            f"--reading {name} must be {' or '.join(values)}, got {text!r}; give one of these"
        )
    return values[text]


def readings_help() -> str:
    """Return the switches with their defaults."""
    return ", ".join(
        f"{each.name}={str(each.default).lower()}" for each in dataclasses.fields(Readings)
    )
