"""One transform job as a state of somebody else's state machine."""

import json
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
from aws_cdk import Annotations, Token
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from batch_transform import warnings as synth_warnings
from batch_transform.bound_model import bind_model, scoring_statements, volume_key_statements
from batch_transform.grants import TransformTaskGrants
from batch_transform.job_data import JobData, distinct_buckets, distinct_keys
from batch_transform.job_policy import create_statement, follow_statements
from batch_transform.model import TransformModel
from batch_transform.names import checked_name, derived_name
from batch_transform.plan_advice import job_advice
from batch_transform.quantities import Duration, days
from batch_transform.request import check_settings, is_jsonata, job_request
from batch_transform.settings import TransformSettings
from batch_transform.settle import transform_jobs_arn
from batch_transform.state_machine import CREATE_JOB, JOB_RETRY
from batch_transform.steps import check_timeout

# Behind it a job's name has a UUID and the attempt: `-`, 36 characters, `-`, 3 digits; 63 in all.
_PREFIX_LENGTH = 22
_ATTEMPT = "$string($states.context.State.RetryCount)"
_PREFIX_WARNING = "@batch-transform:prefixWithoutSlash"


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Location:
    """A place in a bucket, which may be told only when the state machine runs.

    :param key: an object's key, or the text with which keys begin. JSONata such as
        `{% $states.input.folder %}` is evaluated when the job starts.
    :param within: what the key begins with whatever it is; permissions go no further, and another
        key fails the state. `""` is the whole bucket. Default: `key`, which then has to be literal.
    :raises ValueError: only a run would know what is to be allowed.
    """

    bucket: s3.IBucket
    key: str
    within: str | None = None

    def __post_init__(self) -> None:
        if sfn.JsonPath.is_encoded_json_path(self.key):
            raise ValueError(
                "key must be text or JSONata, got a sfn.JsonPath; write "
                "'{% $states.input.folder %}' for $.folder, also in a JSONPath state machine"
            )
        if self.within is None and is_jsonata(self.key):
            raise ValueError(
                f"within must be given when key is JSONata, got {self.key!r} alone; name the "
                "prefix that every such key begins with, for permissions go no further"
            )
        if self.within is not None and not is_jsonata(self.key) and self._strays():
            raise ValueError(
                f"key must begin with within {self.within!r}, got {self.key!r}; correct one of them"
            )

    @property
    def prefix(self) -> str:
        """What all keys begin with."""
        return self.key if self.within is None else self.within

    @property
    def arn(self) -> str:
        """All objects that the place may have."""
        return self.bucket.arn_for_objects(f"{self.prefix}*")

    @property
    def uri(self) -> str:
        """The `s3://` URI, as JSONata if the key is."""
        if not is_jsonata(self.key):
            return f"s3://{self.bucket.bucket_name}/{self.key}"
        expression = self.key.removeprefix("{%").removesuffix("%}").strip()
        # A role that is not ours may allow more than `within`, and a job costs money to fail.
        return (
            f"{{% ($key := ({expression}); $within := {json.dumps(self.prefix)}; "
            "$substring($key, 0, $length($within)) = $within "
            f"? 's3://{self.bucket.bucket_name}/' & $key "
            ": $error('a key must begin with ' & $within & ', got ' & $key)) %}"
        )

    def overlaps(self, other: "S3Location") -> bool:
        """Whether a key of the one may begin with that of the other."""
        return self.bucket.bucket_name == other.bucket.bucket_name and (
            self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix)
        )

    def _strays(self) -> bool:
        known = not (Token.is_unresolved(self.key) or Token.is_unresolved(self.within))
        return known and not self.key.startswith(self.within or "")


class TransformTask(sfn.CustomState):
    """A state that runs a transform job and waits for its end: `start.next(task).next(other)`.

    It is written in JSONata, which a state machine of either query language may hold. Its output is
    the description of the job, unless `outputs` says otherwise. A failed job fails the state with
    `States.TaskFailed`, whose cause is the job's description; refusals that may pass are retried
    as in a pipeline, under a new name each time. The state machine's role gets what the state
    needs, and nothing else is defined but the model.

        task = TransformTask(
            self,
            "Score",
            model=TransformModel.from_artifact("build/model", "image"),
            instance_type="ml.m5.large",
            settings=TransformSettings.csv(),
            source=S3Location(bucket=bucket, key="{% $states.input.folder %}", within="in/"),
            destination=S3Location(bucket=bucket, key="scores/"),
        )
        sfn.StateMachine(self, "Mine", definition_body=sfn.DefinitionBody.from_chainable(task))

    :param source: where the objects are. Without `manifest` all whose key begins so are scored.
    :param destination: where outputs appear: below it the rest of the object's key behind that of
        `source` (of a manifest, what stands in it), and `.out`.
    :param manifest: a manifest (a JSON list: a prefix, then keys) that says which objects of
        `source` to score. Default: all of them.
    :param instance_count: machines; one object is scored by one machine.
    :param settings: how records are cut, filtered, joined and assembled. Default: JSON Lines.
    :param job_timeout: a job that takes longer fails the state with `States.Timeout`. Default: 1
        day.
    :param job_name_prefix: begins the jobs' names: lower case, at most 22 characters. Default: from
        the construct's path.
    :param outputs: JSONata of the state's output, such as `{% $states.input %}`, or a value with
        JSONata in it.
    :raises ValueError: something that the service, or a run, would refuse.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        model: TransformModel,
        instance_type: str,
        source: S3Location,
        destination: S3Location,
        manifest: S3Location | None = None,
        instance_count: int = 1,
        settings: TransformSettings | None = None,
        job_timeout: Duration | None = None,
        job_name_prefix: str | None = None,
        outputs: Any = None,
    ) -> None:
        settings = settings or TransformSettings.json_lines()
        longest: Duration = job_timeout or days(1)
        check_timeout("job_timeout", longest)
        _check_destination(destination, source)
        # Beside the state and not in it, because a state takes what is in it when it is made.
        job = Construct(scope, f"{construct_id}Job")
        prefix = (
            checked_name("job_name_prefix", job_name_prefix, length=_PREFIX_LENGTH)
            if job_name_prefix
            else derived_name(job, length=_PREFIX_LENGTH)
        )
        data = _job_data(source, destination, manifest, settings)
        bound = bind_model(Construct(job, "Model"), model, data=data, settings=settings)
        if bound.parameter is not None:
            raise ValueError(
                "the model of a task must be known at deployment, got one that an SSM parameter "
                "names; name the model, or let a BatchTransform read the parameter"
            )
        check_settings(
            settings,
            model_name=bound.name,
            instance_type=instance_type,
            instance_count=instance_count,
        )
        request = job_request(
            settings,
            model_name=bound.name,
            instance_type=instance_type,
            instance_count=instance_count,
            job_name=f"{{% '{prefix}-' & $uuid() & '-' & {_ATTEMPT} %}}",
            input_uri=(manifest or source).uri,
            output_uri=destination.uri,
            data_type="S3Prefix" if manifest is None else "ManifestFile",
        )
        state = {
            "Type": "Task",
            "QueryLanguage": "JSONata",
            "Resource": CREATE_JOB,
            "Arguments": request,
            "TimeoutSeconds": int(longest.to_seconds()),
        }
        if outputs is not None:
            state["Output"] = outputs
        super().__init__(scope, construct_id, state_json=state)
        for retry in JOB_RETRY:
            self.add_retry(
                errors=retry["ErrorEquals"],
                interval=cdk.Duration.seconds(retry["IntervalSeconds"]),
                backoff_rate=retry["BackoffRate"],
                max_delay=cdk.Duration.seconds(retry["MaxDelaySeconds"]),
                jitter_strategy=sfn.JitterType(retry["JitterStrategy"]),
                max_attempts=retry["MaxAttempts"],
            )
        advice = job_advice(settings, instance_type=instance_type, instance_count=instance_count)
        synth_warnings.warn(self, advice)
        if manifest is None and not _ends_a_folder(source.prefix):
            Annotations.of(self).add_warning_v2(
                _PREFIX_WARNING,
                f"source should end with '/', got {source.prefix!r}, with which "
                f"{source.prefix + '_old'!r} begins, too; end a folder with '/', or name objects "
                "by a manifest",
            )
        jobs_arn = transform_jobs_arn(job, prefix)
        self._statements = [
            create_statement(jobs_arn, model_arns=bound.arns, instance_types=[instance_type]),
            *follow_statements(job, jobs_arn),
            *volume_key_statements(settings),
        ]
        self.grants = TransformTaskGrants(
            self, [*bound.statements, *scoring_statements(job, data=data, settings=settings)]
        )

    def _when_bound_to_graph(self, graph: sfn.StateGraph) -> None:
        for statement in self._statements:
            graph.register_policy_statement(iam.PolicyStatement.from_json(statement))
        super()._when_bound_to_graph(graph)


def _job_data(
    source: S3Location,
    destination: S3Location,
    manifest: S3Location | None,
    settings: TransformSettings,
) -> JobData:
    read = [source] if manifest is None else [source, manifest]
    buckets = [place.bucket for place in read]
    return JobData(
        read=tuple(place.arn for place in read),
        listed=distinct_buckets(*buckets),
        written=(destination.arn,),
        keys=distinct_keys(
            *(bucket.encryption_key for bucket in (*buckets, destination.bucket)),
            settings.output_key,
        ),
    )


def _check_destination(destination: S3Location, source: S3Location) -> None:
    prefix = destination.prefix
    if not _ends_a_folder(prefix):
        raise ValueError(
            f"destination must end with '/', got {prefix!r}; use {prefix + '/'!r}, for outputs lie "
            "below it"
        )
    if destination.overlaps(source):
        raise ValueError(
            f"source and destination must not overlap, got {source.prefix!r} and {prefix!r} of one "
            "bucket; choose another destination or bucket, or a job would score what another wrote"
        )


def _ends_a_folder(prefix: str) -> bool:
    return not prefix or prefix.endswith("/") or Token.is_unresolved(prefix)
