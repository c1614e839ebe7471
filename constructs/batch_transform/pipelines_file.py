"""One YAML file for every pipeline: names as in the Python API, with the unit where it has one.

A platform engineer's fifty pipelines are then one reviewable file, and `app.py` has no resource.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from aws_cdk import Duration, Environment, Size, Stack, Stage
from aws_cdk import aws_s3 as s3
from constructs import Construct
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic import model_validator as validator

from batch_transform.index import PredictionIndex
from batch_transform.model import TransformModel
from batch_transform.pipeline import BatchTransform
from batch_transform.policy import BatchPolicy
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

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]*$", max_length=64)]
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

    invocations_timeout_s: int | None = None
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
    max_payload_mib: int | None = None
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
    retention_days: int | None = None

    def build(self) -> PredictionIndex:
        """Make the value object."""
        days = self.retention_days
        return PredictionIndex(
            record_id=self.record_id, retention=None if days is None else Duration.days(days)
        )


class BatchEntry(_Entry):
    """`BatchPolicy`."""

    max_wait_s: int | None = None
    max_objects: int | None = None
    max_bytes: int | None = None
    marker: str | None = None

    def build(self) -> BatchPolicy:
        """Make the value object."""
        changes = _given(self, "max_wait_s", "max_bytes")
        if self.max_wait_s is not None:
            changes["max_wait"] = Duration.seconds(self.max_wait_s)
        if self.max_bytes is not None:
            changes["max_bytes"] = Size.bytes(self.max_bytes)
        return BatchPolicy(**changes)


class PipelineEntry(_Entry):
    """The arguments of one `BatchTransform`; buckets by name."""

    model: ModelEntry
    instance_type: str
    instance_count: int | None = None
    settings: SettingsEntry | None = None
    index: IndexEntry | None = None
    batch: BatchEntry | None = None
    input_bucket: str | None = None
    output_bucket: str | None = None
    input_prefix: str | None = None
    input_suffix: str | None = None
    max_concurrent_runs: int | None = None
    max_attempts: int | None = None
    job_timeout_s: int | None = None
    pipeline_id: str | None = None

    def build(self, scope: Construct, construct_id: str, folder: Path) -> BatchTransform:
        """Define the pipeline in `scope`."""
        arguments = _given(
            self,
            *("model", "settings", "index", "batch"),
            *("input_bucket", "output_bucket", "job_timeout_s"),
        )
        for part in ("settings", "index", "batch"):
            entry = getattr(self, part)
            if entry is not None:
                arguments[part] = entry.build()
        for bucket in ("input_bucket", "output_bucket"):
            name = getattr(self, bucket)
            if name is not None:
                arguments[bucket] = s3.Bucket.from_bucket_name(scope, f"{bucket}-{name}", name)
        if self.job_timeout_s is not None:
            arguments["job_timeout"] = Duration.seconds(self.job_timeout_s)
        return BatchTransform(scope, construct_id, model=self.model.build(folder), **arguments)


class AccountEntry(_Entry):
    """Where a stage goes."""

    account: Annotated[str, StringConstraints(pattern=r"^\d{12}$")]
    region: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]


class PipelinesFile(_Entry):
    """The whole file."""

    pipelines: Annotated[dict[Name, PipelineEntry], Field(min_length=1)]
    accounts: dict[Name, AccountEntry] = {}


def define_pipelines(scope: Construct, path: Path) -> None:
    """Define a stack per pipeline of the file at `path`; with accounts, in a stage for each.

    :raises PipelinesFileError: the file, or what it asks for, is not valid.
    """
    tree = _read(path)
    try:
        content = PipelinesFile.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except ValidationError as refused:
        # A mistyped member is also a missing one, and its own name says more.
        error = min(refused.errors(), key=lambda error: error["type"] != "extra_forbidden")
        raise _error(path, tree, _place(error["loc"]), _sentence(error)) from None
    scopes: list[Construct] = [scope]
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
                raise _error(path, tree, ("pipelines", name), sentence) from refused


def _read(path: Path) -> yaml.Node:
    """Return the file's tree, which knows its line numbers."""
    try:
        tree = yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader)
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
    if not isinstance(tree, yaml.MappingNode):
        raise PipelinesFileError(
            f"{path.name}:1: must have the member pipelines, got none; add a first pipeline"
        )
    for place, key in _twice(tree, ()):
        raise _error(
            path, tree, place, f"must have {key!r} once, got it twice; rename or remove one"
        )
    return tree


def _twice(node: yaml.Node, place: Place) -> Iterator[tuple[Place, str]]:
    """Yield the members that stand twice, of which YAML readers silently take the last."""
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            yield from _twice(item, (*place, position))
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield place, key.value
            seen.add(key.value)
            yield from _twice(value, (*place, key.value))


def _place(location: Place) -> Place:
    # Pydantic adds the branch of a union and the word [key], which do not stand in the file.
    return tuple(part for part in location if part not in ("int", "str", "[key]"))


def _error(path: Path, tree: yaml.Node, place: Place, sentence: str) -> PipelinesFileError:
    line = _line(tree, place)
    where = ".".join(map(str, place)) or "the file"
    return PipelinesFileError(f"{path.name}:{line}: {where}: {sentence}")


def _line(node: yaml.Node, place: Place) -> int:
    """Return the line of the deepest part of `place` that stands in the file."""
    line = node.start_mark.line + 1
    for part in place:
        if not isinstance(node, yaml.MappingNode):
            return line
        found = [(key, value) for key, value in node.value if key.value == str(part)]
        if not found:
            return line
        key, node = found[0]
        line = key.start_mark.line + 1
    return line


def _sentence(error: Mapping[str, Any]) -> str:
    """Say what is wrong in the words of our other errors."""
    kind, got = error["type"], error["input"]
    if kind == "extra_forbidden":
        return f"must be a member that exists, got {error['loc'][-1]!r}; correct or remove it"
    if kind == "missing":
        return "must be given, got nothing; add it"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    message = str(error["msg"]).replace("Input should", "must").replace("String should", "must")
    if kind == "string_type":
        return f"{message}, got {got!r}; put it in quotes"
    return f"{message}, got {got!r}; correct it"
