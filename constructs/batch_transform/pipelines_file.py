"""One YAML file for every pipeline: names as in the Python API, with the unit where it has one.

A platform engineer's fifty pipelines are then one reviewable file, and `app.py` has no resource.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from aws_cdk import Duration, Environment, Size, Stack, Stage
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_scheduler as scheduler
from constructs import Construct
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic import model_validator as validator

from batch_transform.model import TransformModel
from batch_transform.pipeline import BatchTransform
from batch_transform.policy import BatchPolicy
from batch_transform.prediction_index import PredictionIndex
from batch_transform.settings import (
    AssembleWith,
    BatchStrategy,
    CompressionType,
    DataProcessing,
    JoinSource,
    ModelClientConfig,
    SplitType,
    TransformSettings,
)
from batch_transform.uploads import Uploads


def _written(pattern: str, rule: str) -> AfterValidator:
    """Refuse text of another form, in words instead of the pattern."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"must be {rule}, got {text!r}; correct it")
        return text

    return AfterValidator(check)


Name = Annotated[
    str,
    _written(
        r"[A-Za-z][A-Za-z0-9-]{0,63}", "at most 64 letters, digits and hyphens, a letter first"
    ),
]
BucketName = Annotated[
    str, _written(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "a bucket's plain name such as my-bucket")
]
# Duration and Size throw a JavaScript error at less than nothing.
Amount = Annotated[int, Field(ge=0)]
Place = tuple[str | int, ...]


class PipelinesFileError(ValueError):
    """The file cannot become pipelines; one line that names the file and the place in it."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _given(entry: BaseModel, *without: str) -> dict[str, Any]:
    """Return what the file says, so that what it leaves out keeps the library's default."""
    given = {name: getattr(entry, name) for name in entry.model_fields_set if name not in without}
    return {name: value for name, value in given.items() if value is not None}


class ModelEntry(_Entry):
    """Either a `name`, or `artifact` and `image`."""

    name: str | None = None
    artifact: str | None = None
    image: str | None = None
    environment: dict[str, str] = {}
    network_isolation: bool = False

    @validator(mode="after")
    def _one_kind(self) -> Self:
        made = {"artifact", "image"} <= self.model_fields_set
        if made == (self.name is not None) or (self.name and len(self.model_fields_set) > 1):
            raise ValueError(
                "must have either name alone, or artifact and image, "
                f"got {', '.join(sorted(self.model_fields_set)) or 'neither'}; leave one kind out"
            )
        return self

    def build(self, folder: Path) -> TransformModel:
        """Make the model; paths are relative to `folder`."""
        if self.artifact is None or self.image is None:
            return TransformModel.from_model_name(str(self.name))
        image = self.image if ".dkr.ecr." in self.image else folder / self.image
        return TransformModel.from_artifact(
            folder / self.artifact,
            image,
            environment=self.environment,
            network_isolation=self.network_isolation,
        )


class DataProcessingEntry(_Entry):
    """`DataProcessing`."""

    input_filter: str | None = None
    output_filter: str | None = None
    join_source: JoinSource | None = Field(default=None, strict=False)


class ModelClientEntry(_Entry):
    """`ModelClientConfig`."""

    invocations_timeout_s: Amount | None = None
    invocations_max_retries: int | None = None

    def build(self) -> ModelClientConfig:
        """Make the value object."""
        seconds = self.invocations_timeout_s
        return ModelClientConfig(
            invocations_timeout=None if seconds is None else Duration.seconds(seconds),
            invocations_max_retries=self.invocations_max_retries,
        )


class FormatEntry(_Entry):
    """What a format's factory sets, and what the file sets differently."""

    accept: str | None = None
    split_type: SplitType | None = Field(default=None, strict=False)
    assemble_with: AssembleWith | None = Field(default=None, strict=False)
    compression_type: CompressionType | None = Field(default=None, strict=False)
    batch_strategy: BatchStrategy | None = Field(default=None, strict=False)
    max_payload_mib: Amount | None = None
    max_concurrent_transforms: int | None = None
    model_client: ModelClientEntry | None = None
    data_processing: DataProcessingEntry | None = None
    environment: dict[str, str] = {}
    ami_version: str | None = None
    tags: dict[str, str] = {}

    def vary(self, settings: TransformSettings) -> TransformSettings:
        """Return `settings` with what the file sets."""
        changes = _given(self, "content_type", "max_payload_mib", "model_client", "data_processing")
        if self.max_payload_mib is not None:
            changes["max_payload"] = Size.mebibytes(self.max_payload_mib)
        if self.model_client is not None:
            changes["model_client"] = self.model_client.build()
        if self.data_processing is not None:
            changes["data_processing"] = DataProcessing(**_given(self.data_processing))
        return replace(settings, **changes)


class WholeFilesEntry(FormatEntry):
    """As `FormatEntry`, with the files' content type."""

    content_type: str


class SettingsEntry(_Entry):
    """One of `TransformSettings`' factories, by its name."""

    csv: FormatEntry | None = None
    json_lines: FormatEntry | None = None
    whole_files: WholeFilesEntry | None = None

    @validator(mode="after")
    def _one_format(self) -> Self:
        if len(self.model_fields_set) != 1:
            got = ", ".join(sorted(self.model_fields_set)) or "none"
            raise ValueError(
                f"must have one of csv, json_lines, whole_files, got {got}; "
                "make a pipeline for each"
            )
        return self

    def build(self) -> TransformSettings:
        """Make the value object."""
        if self.csv is not None:
            return self.csv.vary(TransformSettings.csv())
        if self.json_lines is not None:
            return self.json_lines.vary(TransformSettings.json_lines())
        if self.whole_files is not None:
            content_type = self.whole_files.content_type
            return self.whole_files.vary(TransformSettings.whole_files(content_type))
        raise ValueError("must have a format's members, got nothing; write for example csv: {}")


class IndexEntry(_Entry):
    """`PredictionIndex`."""

    record_id: int | str
    retention_days: Amount | None = None

    def build(self) -> PredictionIndex:
        """Make the value object."""
        days = self.retention_days
        return PredictionIndex(
            record_id=self.record_id, retention=None if days is None else Duration.days(days)
        )


class BatchEntry(_Entry):
    """`BatchPolicy`."""

    max_wait_s: Amount | None = None
    max_objects: int | None = None
    max_bytes: Amount | None = None
    marker: str | None = None

    def build(self) -> BatchPolicy:
        """Make the value object."""
        changes = _given(self, "max_wait_s", "max_bytes")
        if self.max_wait_s is not None:
            changes["max_wait"] = Duration.seconds(self.max_wait_s)
        if self.max_bytes is not None:
            changes["max_bytes"] = Size.bytes(self.max_bytes)
        return BatchPolicy(**changes)


class UploadsEntry(_Entry):
    """`Uploads`."""

    prefix: str | None = None
    suffix: str | list[str] | None = None
    min_bytes: Amount | None = None
    max_bytes: Amount | None = None
    events: bool | None = None

    def build(self) -> Uploads:
        """Make the value object."""
        changes = _given(self, "min_bytes", "max_bytes")
        if self.min_bytes is not None:
            changes["min_size"] = Size.bytes(self.min_bytes)
        if self.max_bytes is not None:
            changes["max_size"] = Size.bytes(self.max_bytes)
        return Uploads(**changes)


class PipelineEntry(_Entry):
    """The arguments of one `BatchTransform`; buckets by name."""

    model: ModelEntry
    instance_type: str
    instance_count: int | None = None
    settings: SettingsEntry | None = None
    index: IndexEntry | None = None
    batch: BatchEntry | None = None
    input_bucket: BucketName | None = None
    output_bucket: BucketName | None = None
    uploads: UploadsEntry | None = None
    schedule: (
        Annotated[str, _written(r"(cron|rate|at)\(.+\)", "a schedule such as rate(1 day)")] | None
    ) = None
    max_concurrent_runs: int | None = None
    max_attempts: int | None = None
    max_failed_fraction: float | None = None
    check_records: bool | None = None
    job_timeout_s: Amount | None = None
    pipeline_id: str | None = None

    def build(self, scope: Construct, construct_id: str, folder: Path) -> BatchTransform:
        """Define the pipeline in `scope`."""
        arguments = _given(
            self,
            *("model", "settings", "index", "batch", "uploads"),
            *("input_bucket", "output_bucket", "job_timeout_s", "schedule"),
        )
        for part in ("settings", "index", "batch", "uploads"):
            entry = getattr(self, part)
            if entry is not None:
                arguments[part] = entry.build()
        for bucket in ("input_bucket", "output_bucket"):
            name = getattr(self, bucket)
            if name is not None:
                arguments[bucket] = s3.Bucket.from_bucket_name(scope, f"{bucket}-{name}", name)
        if self.schedule is not None:
            arguments["schedule"] = scheduler.ScheduleExpression.expression(self.schedule)
        if self.job_timeout_s is not None:
            arguments["job_timeout"] = Duration.seconds(self.job_timeout_s)
        return BatchTransform(scope, construct_id, model=self.model.build(folder), **arguments)


class AccountEntry(_Entry):
    """Where a stage goes."""

    account: Annotated[str, _written(r"[0-9]{12}", "twelve digits in quotes")]
    region: Annotated[str, _written(r"[a-z]{2}(-[a-z]+)+-\d", "a region such as eu-west-1")]


class PipelinesFile(_Entry):
    """The whole file."""

    pipelines: Annotated[dict[Name, PipelineEntry], Field(min_length=1)]
    accounts: dict[Name, AccountEntry] = {}


def define_pipelines(scope: Construct, path: Path) -> None:
    """Define a stack per pipeline of the file at `path`; with accounts, in a stage for each.

    :raises PipelinesFileError: the file, or what it asks for, is not valid.
    """
    tree, members = _read(path)
    try:
        content = PipelinesFile.model_validate(members)
    except ValidationError as refused:
        # A mistyped member is also a missing one, and its own name says more.
        error = min(refused.errors(), key=lambda error: error["type"] != "extra_forbidden")
        raise _error(path, tree, _place(error["loc"]), _sentence(error)) from None
    scopes: list[Construct] = [scope]
    if len(content.accounts) > 1:
        _check_buckets_of_several_accounts(path, tree, content)
    if content.accounts:
        scopes = [
            Stage(scope, name, env=Environment(account=entry.account, region=entry.region))
            for name, entry in content.accounts.items()
        ]
    for stacks in scopes:
        for name, pipeline in content.pipelines.items():
            try:
                pipeline.build(Stack(stacks, name), name, path.parent)
            except ValueError as refused:
                sentence = str(refused).replace("\n", "; also: ")
                place = ("pipelines", name)
                line = _line(tree, _named(tree, place, sentence))
                raise _error(path, tree, place, sentence, line=line) from refused


def _check_buckets_of_several_accounts(path: Path, tree: yaml.Node, content: PipelinesFile) -> None:
    """Refuse buckets by name: a bucket tells the EventBridge of its own account and region only."""
    for name, pipeline in content.pipelines.items():
        for member in ("input_bucket", "output_bucket"):
            bucket = getattr(pipeline, member)
            if bucket is not None:
                raise _error(
                    path,
                    tree,
                    ("pipelines", name, member),
                    f"must not be given with {len(content.accounts)} accounts, as a bucket is in "
                    f"one of them only, got {bucket!r}; leave it out, or make an app for each "
                    "account",
                )


def _read(path: Path) -> tuple[yaml.Node, Any]:
    """Return the file's tree, which knows its line numbers, and what the tree says."""
    try:
        text = path.read_text("utf-8")
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        members = yaml.safe_load(text)
    except FileNotFoundError:
        raise PipelinesFileError(
            f"{path.name} must be beside app.py, got nothing at {path}; "
            "create it with a first pipeline"
        ) from None
    except yaml.MarkedYAMLError as refused:
        line = refused.problem_mark.line + 1 if refused.problem_mark else 1
        raise PipelinesFileError(
            f"{path.name}:{line}: must be YAML, got {refused.problem}; correct the line"
        ) from None
    except (UnicodeDecodeError, yaml.reader.ReaderError) as refused:
        raise PipelinesFileError(
            f"{path.name}: must be text in UTF-8, got {refused.reason}; save it again as UTF-8"
        ) from None
    if not isinstance(tree, yaml.MappingNode):
        raise PipelinesFileError(
            f"{path.name}:1: must have the member pipelines, got none; add a first pipeline"
        )
    for place, key in _twice(tree, ()):
        sentence = f"must have {key.value!r} once, got it twice; rename or remove one"
        raise _error(path, tree, place, sentence, line=key.start_mark.line + 1)
    return tree, members


def _twice(node: yaml.Node, place: Place) -> Iterator[tuple[Place, yaml.Node]]:
    """Yield the members that stand twice, of which YAML readers silently take the last."""
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            yield from _twice(item, (*place, position))
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield place, key
            seen.add(key.value)
            yield from _twice(value, (*place, key.value))


def _place(location: Place) -> Place:
    # Pydantic adds the branch of a union and the word [key], which do not stand in the file.
    return tuple(part for part in location if part not in ("int", "str", "list[str]", "[key]"))


def _error(
    path: Path, tree: yaml.Node, place: Place, sentence: str, *, line: int | None = None
) -> PipelinesFileError:
    line = line or _line(tree, place)
    where = ".".join(map(str, place)) or "the file"
    return PipelinesFileError(f"{path.name}:{line}: {where}: {sentence}")


def _line(node: yaml.Node, place: Place) -> int:
    """Return the line of the deepest part of `place` that stands in the file."""
    line = node.start_mark.line + 1
    for part in place:
        found = [(key, value) for key, value in _members(node) if key.value == str(part)]
        if not found:
            return line
        key, node = found[0]
        line = key.start_mark.line + 1
    return line


def _members(node: yaml.Node) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """Yield a mapping's own members, then those that `<<` merges into it."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _members(item)
    if isinstance(node, yaml.MappingNode):
        yield from node.value
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                yield from _members(value)


def _named(tree: yaml.Node, place: Place, sentence: str) -> Place:
    """Return the place of the member below `place` that a refusal of the library names first."""
    node = tree
    for part in place:
        node = next(value for key, value in _members(node) if key.value == str(part))
    places = {_plain(str(below[-1])): below for below in _places(node, place)}
    for word in re.findall(r"\w+", sentence.partition(", got")[0]):
        if _plain(word) in places:
            return places[_plain(word)]
    return place


def _places(node: yaml.Node, place: Place) -> Iterator[Place]:
    for key, value in _members(node):
        yield (*place, key.value)
        yield from _places(value, (*place, key.value))


def _plain(name: str) -> str:
    """Write AWS's `MaxPayloadInMB`, the API's `max_payload` and our `max_payload_mib` alike."""
    return re.sub(r"InMB$|InSeconds$|_mib$|_s$|_days$", "", name).replace("_", "").lower()


def _sentence(error: Mapping[str, Any]) -> str:
    """Say what is wrong in the words of our other errors."""
    kind, got = error["type"], error["input"]
    if kind == "extra_forbidden":
        return f"must be a member that exists, got {error['loc'][-1]!r}; correct or remove it"
    if kind == "missing":
        return "must be given, got nothing; add it"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind in ("dict_type", "model_type"):
        return f"must have members, got {got!r}; write them indented below it"
    if kind == "too_short":
        return "must have a member, got none; add the first"
    message = str(error["msg"]).replace("Input should", "must").replace("String should", "must")
    if kind == "string_type" and not isinstance(got, list | dict | None):
        return f"{message}, got {got!r}; put it in quotes"
    return f"{message}, got {got!r}; correct it"
