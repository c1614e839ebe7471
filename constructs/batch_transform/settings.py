"""What a transform job is told about its data: cut, filter, batch, join, assemble."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from batch_transform.quantities import Duration, Size

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_s3 as s3

# The enums are ours because aws_stepfunctions_tasks' have the names, not the values, that the
# service takes (`SplitType.LINE.value` is "LINE" in Python), and importing it costs a second.


class SplitType(StrEnum):
    """How the service cuts an object into records."""

    NONE = "None"
    LINE = "Line"
    RECORD_IO = "RecordIO"
    TF_RECORD = "TFRecord"


class CompressionType(StrEnum):
    """How the objects are compressed; the service decompresses them."""

    NONE = "None"
    GZIP = "Gzip"


class BatchStrategy(StrEnum):
    """How many records one request to the model holds."""

    MULTI_RECORD = "MultiRecord"
    SINGLE_RECORD = "SingleRecord"


class AssembleWith(StrEnum):
    """What stands behind every transformed record in the output."""

    NONE = "None"
    LINE = "Line"


class JoinSource(StrEnum):
    """What the model's answer is joined to."""

    NONE = "None"
    INPUT = "Input"


def _set_members(**members: Any) -> dict[str, Any]:
    """Keep what the user set: a member that is written replaces the service's default."""
    return {name: value for name, value in members.items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class DataProcessing:
    """What of a record the model sees, and what of record and answer is kept.

    The filters are JSONPath in the service's subset (reference §1.7), at most 63 characters:
    `$[1:]` leaves the first CSV column out, `$[0,-1]` keeps the first and the last.

    :param join_source: `JoinSource.INPUT` appends the answer to the unfiltered record.
    """

    input_filter: str | None = None
    output_filter: str | None = None
    join_source: JoinSource | None = None

    def to_request(self) -> dict[str, Any]:
        """Return the request's DataProcessing member."""
        return _set_members(
            InputFilter=self.input_filter,
            OutputFilter=self.output_filter,
            JoinSource=self.join_source and self.join_source.value,
        )


_FILTER_LENGTH = 63


def _check_alone(data_processing: DataProcessing | None) -> None:
    if data_processing is not None:
        raise ValueError(
            "data_processing must stand alone, got it beside what makes one; "
            "write the filters and the join into it"
        )


def _keep_columns(
    id_column: int | None, input_filter: str | None, answer_columns: int, keep_input: bool
) -> DataProcessing:
    output_filter = None
    if id_column is not None:
        if id_column < 0:
            raise ValueError(
                f"id_column must be a column number from 0 on, got {id_column}; "
                "count the columns of the input from the left"
            )
        if input_filter is None and id_column > 0:
            # One range cannot leave out a column in the middle, and how many follow is not known.
            raise ValueError(
                f"id_column must be 0 where input_filter is left out, got {id_column}; say what "
                f"the model sees, for example input_filter='$[{id_column + 1}:]'"
            )
        input_filter = input_filter or "$[1:]"
        if not keep_input:
            output_filter = _columns(id_column, *range(-answer_columns, 0))
            if answer_columns < 1 or len(output_filter) > _FILTER_LENGTH:
                raise ValueError(
                    f"answer_columns must be 1 to what a filter of {_FILTER_LENGTH} characters "
                    f"can list, got {answer_columns}; set keep_input=True to keep all columns"
                )
    join = JoinSource.INPUT if id_column is not None or keep_input else None
    return DataProcessing(input_filter=input_filter, join_source=join, output_filter=output_filter)


def _columns(*columns: int) -> str:
    return f"$[{','.join(map(str, columns))}]"


def _keep_members(
    id_member: str | None, input_filter: str | None, keep_input: bool
) -> DataProcessing:
    output_filter = None
    if id_member is not None and not keep_input:
        output_filter = f"$['{id_member}','SageMakerOutput']"
        if not re.fullmatch("[A-Za-z0-9 -]+", id_member) or len(output_filter) > _FILTER_LENGTH:
            raise ValueError(
                "id_member must be a name that a filter can select (letters, digits, blanks and "
                f"hyphens, at most {_FILTER_LENGTH} with the filter around it), got "
                f"{id_member!r}; set keep_input=True to keep all members"
            )
    join = JoinSource.INPUT if id_member is not None or keep_input else None
    return DataProcessing(input_filter=input_filter, join_source=join, output_filter=output_filter)


def _compression(gzip: bool) -> CompressionType | None:
    return CompressionType.GZIP if gzip else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelClientConfig:
    """How long the service waits for one answer of the model, and how often it asks again.

    :param invocations_timeout: 1 second to 1 hour.
    :param invocations_max_retries: 0 to 3.
    """

    invocations_timeout: Duration | None = None
    invocations_max_retries: int | None = None

    def to_request(self) -> dict[str, Any]:
        """Return the request's ModelClientConfig member."""
        timeout = self.invocations_timeout
        return _set_members(
            InvocationsTimeoutInSeconds=None if timeout is None else int(timeout.to_seconds()),
            InvocationsMaxRetries=self.invocations_max_retries,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DataCapture:
    """Where the service notes which objects it read and wrote (manifests, no data).

    :param prefix: ends with `/`.
    :param generate_inference_id: adds an id and the job's start time to every output record.
    """

    bucket: "s3.IBucket"
    prefix: str
    key: "kms.IKey | None" = None
    generate_inference_id: bool | None = None

    def __post_init__(self) -> None:
        if not self.prefix.endswith("/"):
            raise ValueError(
                f"a capture's prefix must end with '/', got {self.prefix!r}; "
                f"use {self.prefix + '/'!r}"
            )

    def to_request(self) -> dict[str, Any]:
        """Return the request's DataCaptureConfig member."""
        return _set_members(
            DestinationS3Uri=self.bucket.s3_url_for_object(self.prefix),
            KmsKeyId=self.key and self.key.key_arn,
            GenerateInferenceId=self.generate_inference_id,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """The SageMaker experiment that the jobs belong to."""

    experiment_name: str | None = None
    trial_name: str | None = None
    trial_component_display_name: str | None = None
    run_name: str | None = None

    def to_request(self) -> dict[str, Any]:
        """Return the request's ExperimentConfig member."""
        return _set_members(
            ExperimentName=self.experiment_name,
            TrialName=self.trial_name,
            TrialComponentDisplayName=self.trial_component_display_name,
            RunName=self.run_name,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformSettings:
    """How one drop becomes requests to the model, and its answers become one output.

    Start from a factory and vary it with `dataclasses.replace`. What is `None` is not written
    into the request, so the service's own default holds.

    :param assemble_with: what stands behind every answer. Default: a line feed when `split_type` is
        Line, else the service's, which is nothing.
    :param accept: the format of the answers. Default: the service sends none; those for CSV
        and JSON Lines set it to `content_type`.
    :param max_payload: the largest request to the model, whole MiB, at most 100 and at most
        100 / `max_concurrent_transforms`; 0 streams objects of any size.
    :param max_concurrent_transforms: requests in flight per instance.
    :param environment: goes to the model's container in addition to the model's own.
    :param output_key: encrypts what a job writes, which lies under `runs/`, instead of the bucket's
        own default. What is copied from there to `predictions/` has the bucket's default.
    :param volume_key: encrypts the instances' volume; refused for types with local NVMe storage.
    :param ami_version: chooses the NVIDIA driver of GPU instances.
    """

    content_type: str = "application/jsonlines"
    split_type: SplitType = SplitType.LINE
    assemble_with: AssembleWith | None = None
    accept: str | None = None
    compression_type: CompressionType | None = None
    batch_strategy: BatchStrategy | None = None
    max_payload: Size | None = None
    max_concurrent_transforms: int | None = None
    model_client: ModelClientConfig | None = None
    data_processing: DataProcessing | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    data_capture: DataCapture | None = None
    experiment: Experiment | None = None
    output_key: "kms.IKey | None" = None
    volume_key: "kms.IKey | None" = None
    ami_version: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def csv(
        cls,
        *,
        id_column: int | None = None,
        input_filter: str | None = None,
        answer_columns: int = 1,
        keep_input: bool = False,
        data_processing: DataProcessing | None = None,
        gzip: bool = False,
    ) -> Self:
        """One CSV row a record; answers come back as rows.

        With an id column the model does not see the id, and an output row is the id and the
        answer, so that in the output the id is column 0: `7,blue,12` and the answer `0.9` become
        `7,0.9`, or `7,blue,12,0.9` with `keep_input`.

        :param id_column: where a row's id stands, from 0 on.
        :param input_filter: what the model sees, such as `$[3:]` or `$[1,2,5]`. Default: all
            columns but the id, which must be the first then.
        :param answer_columns: how many columns the model answers, where the id is kept without
            the rest of the row.
        :param keep_input: keep whole rows, not the id alone.
        :param data_processing: filters and join of your own, instead of the above.
        :raises ValueError: `data_processing` beside the above, or what no filter can select.
        """
        if id_column is not None or input_filter is not None or keep_input:
            _check_alone(data_processing)
            data_processing = _keep_columns(id_column, input_filter, answer_columns, keep_input)
        csv = "text/csv"
        return cls(
            content_type=csv,
            accept=csv,
            data_processing=data_processing,
            compression_type=_compression(gzip),
        )

    @classmethod
    def json_lines(
        cls,
        *,
        id_member: str | None = None,
        input_filter: str | None = None,
        keep_input: bool = False,
        data_processing: DataProcessing | None = None,
        gzip: bool = False,
    ) -> Self:
        """One JSON value a line; answers come back as lines.

        With `id_member` or `keep_input` an output line has the answer as the member
        `SageMakerOutput`: `{"id": 7, "text": "…"}` becomes `{"SageMakerOutput": 0.9, "id": 7}`.

        :param id_member: the member that is kept beside the answer, such as `id`.
        :param input_filter: what the model sees, such as `$.features`. Default: the whole value.
        :param keep_input: keep all members, not `id_member` alone.
        :param data_processing: filters and join of your own, instead of the above.
        :raises ValueError: `data_processing` beside the above, or what no filter can select.
        """
        if id_member is not None or input_filter is not None or keep_input:
            _check_alone(data_processing)
            data_processing = _keep_members(id_member, input_filter, keep_input)
        json_lines = "application/jsonlines"
        return cls(
            content_type=json_lines,
            accept=json_lines,
            data_processing=data_processing,
            compression_type=_compression(gzip),
        )

    @classmethod
    def whole_files(
        cls, content_type: str, *, accept: str | None = None, gzip: bool = False
    ) -> Self:
        """One file a request, for images, documents and other formats that cannot be cut.

        Files over 6 MiB need `max_payload`: `replace(…, max_payload=Size.mebibytes(20))`.
        """
        return cls(
            content_type=content_type,
            accept=accept,
            split_type=SplitType.NONE,
            compression_type=_compression(gzip),
        )

    @classmethod
    def record_io(
        cls,
        content_type: str = "application/x-recordio-protobuf",
        *,
        accept: str | None = None,
        gzip: bool = False,
    ) -> Self:
        """RecordIO records, which SageMaker's own algorithms read; answers follow each other.

        A request of several records is RecordIO again, one of a single record is the bare record.
        """
        return cls(
            content_type=content_type,
            accept=accept,
            split_type=SplitType.RECORD_IO,
            compression_type=_compression(gzip),
        )

    @classmethod
    def tf_record(cls, content_type: str, *, accept: str | None = None, gzip: bool = False) -> Self:
        """TFRecord records; answers follow each other.

        A request of several records is TFRecord again, one of a single record is the bare record.

        :param content_type: what the model server knows such requests by; there is no standard
            one.
        """
        return cls(
            content_type=content_type,
            accept=accept,
            split_type=SplitType.TF_RECORD,
            compression_type=_compression(gzip),
        )

    def __post_init__(self) -> None:
        if self.max_payload is not None:
            mebibytes = self.max_payload.to_bytes() / 2**20
            if mebibytes != int(mebibytes):
                raise ValueError(
                    f"max_payload must be whole MiB, got {mebibytes:g} MiB; "
                    f"use Size.mebibytes({int(mebibytes) + 1})"
                )

    def to_request(self) -> dict[str, Any]:
        """Return the part of a CreateTransformJob request that these settings decide."""
        payload = self.max_payload
        assemble_with = self.assemble_with
        if assemble_with is None and self.split_type is SplitType.LINE:
            assemble_with = AssembleWith.LINE  # or answers to lines run into each other
        request = _set_members(
            BatchStrategy=self.batch_strategy and self.batch_strategy.value,
            MaxConcurrentTransforms=self.max_concurrent_transforms,
            MaxPayloadInMB=None if payload is None else int(payload.to_bytes()) // 2**20,
            ModelClientConfig=self.model_client and self.model_client.to_request(),
            DataProcessing=self.data_processing and self.data_processing.to_request(),
            DataCaptureConfig=self.data_capture and self.data_capture.to_request(),
            ExperimentConfig=self.experiment and self.experiment.to_request(),
            Environment=dict(self.environment) or None,
            Tags=[{"Key": key, "Value": value} for key, value in self.tags.items()] or None,
        )
        request["TransformInput"] = _set_members(
            ContentType=self.content_type,
            SplitType=self.split_type.value,
            CompressionType=self.compression_type and self.compression_type.value,
        )
        request["TransformOutput"] = _set_members(
            AssembleWith=assemble_with and assemble_with.value,
            Accept=self.accept,
            KmsKeyId=self.output_key and self.output_key.key_arn,
        )
        request["TransformResources"] = _set_members(
            VolumeKmsKeyId=self.volume_key and self.volume_key.key_arn,
            TransformAmiVersion=self.ami_version,
        )
        return request
