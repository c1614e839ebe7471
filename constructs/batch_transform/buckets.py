"""Where drops arrive and outputs appear."""

from collections.abc import Sequence
from typing import cast

from aws_cdk import Annotations, Duration, RemovalPolicy
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from batch_transform.account_imports import is_of_account
from batch_transform.job_data import JobData, distinct_buckets, distinct_keys
from batch_transform.places import REPORTS, RUNS, StepPlace
from batch_transform.statements import Statement, allow
from batch_transform.tokens import is_token
from batch_transform.uploads import Uploads

#: The id of the warning, for `Annotations.of(pipeline).acknowledge_warning`.
EVENTS_OF_IMPORTED_BUCKET = "@batch-transform:eventsOfImportedBucket"

# The child that CDK's Bucket gets when it is told to notify anyone.
_L2_NOTIFICATIONS = "Notifications"
# CDK warns of a bucket for access logs that it has not made, whose policy it cannot see.
_POLICY_NOT_SEEN = "@aws-cdk/aws-s3:accessLogsPolicyNotAdded"
_UNFINISHED_UPLOADS = Duration.days(7)
_RUN_FILES = Duration.days(30)
_A_DAY = Duration.days(1)


class TransformBuckets(Construct):
    """The input and the output bucket: own ones, or those that exist already."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        pipeline_id: str,
        input_bucket: s3.IBucket | None,
        output_bucket: s3.IBucket | None,
        uploads: Uploads,
        output_prefix: str,
        encryption_key: kms.IKey | None,
        jobs_keys: Sequence[kms.IKey],
        access_logs: s3.IBucket | None,
        removal_policy: RemovalPolicy,
    ) -> None:
        super().__init__(scope, construct_id)
        self._pipeline_id = pipeline_id
        if input_bucket is not None and output_bucket is not None:
            _check_overlap(input_bucket, output_bucket, uploads.prefix, output_prefix)
        self.input_prefix = uploads.prefix
        self.output_prefix = output_prefix
        self._jobs_keys = jobs_keys
        self._access_logs = access_logs
        if input_bucket is not None and uploads.events:
            self._expect_events(input_bucket)
        self.input: s3.IBucket = input_bucket or self._own_input(encryption_key, removal_policy)
        self.output: s3.IBucket = output_bucket or self._own_output(encryption_key, removal_policy)
        # Asked for once: each answer of CDK is a round trip.
        self.input_name, self.input_arn = self.input.bucket_name, self.input.bucket_arn
        self.output_name, self.output_arn = self.output.bucket_name, self.output.bucket_arn
        #: What tells them from other buckets; one that is made here is known by its token.
        self.input_identity = bucket_identity(self.input) if input_bucket else self.input_name
        self.output_identity = bucket_identity(self.output) if output_bucket else self.output_name
        #: The KMS keys of drops.
        self.input_keys = [*distinct_keys(self.input.encryption_key)]
        #: The KMS keys of predictions, reports and the files of runs, each once.
        self.output_keys = [*distinct_keys(self.output.encryption_key, *self._jobs_keys)]

    def inputs_arn(self) -> str:
        """Every object that can be a drop."""
        return f"{self.input_arn}/{self.input_prefix}*"

    def output_objects(self, pattern: str) -> str:
        """Every object of the output bucket whose key is of a pattern."""
        return f"{self.output_arn}/{pattern}"

    def job_data(self, step: StepPlace) -> JobData:
        """Return what the jobs of a step read and write: the first reads drops."""
        before = step.before
        read = self._outputs_arn(before) if before else self.inputs_arn()
        sources = [] if before else [self.input]
        keys = [] if before else self.input_keys
        return JobData(
            read=(read, self.output_objects(f"{RUNS}*/{step.manifest}")),
            listed=distinct_buckets(*sources, self.output),
            written=(self._outputs_arn(step),),
            keys=distinct_keys(*keys, *self.output_keys),
        )

    def _outputs_arn(self, step: StepPlace) -> str:
        return self.output_objects(f"{RUNS}*/{step.folder}/*")

    def key_use(self, *actions: str, keys: Sequence[kms.IKey] | None = None) -> list[Statement]:
        """Return the statement that lets its holder use the buckets' keys; none without keys.

        :param keys: Default: those of both buckets.
        """
        if keys is None:
            keys = distinct_keys(*self.input_keys, *self.output_keys)
        if not keys:
            return []
        return [allow(actions=list(actions), resources=[key.key_arn for key in keys])]

    def _expect_events(self, input_bucket: s3.IBucket) -> None:
        """Have a bucket of somebody else tell EventBridge of uploads, as far as we can."""
        if isinstance(input_bucket.node.scope, TransformBuckets):
            _tell_eventbridge(input_bucket)  # another pipeline's: this one scores its predictions
        elif input_bucket.node.default_child is not None:
            _check_events(input_bucket)
        else:
            Annotations.of(self).add_warning_v2(
                EVENTS_OF_IMPORTED_BUCKET,
                "input_bucket must send its events to EventBridge, got an imported one, of which "
                "that cannot be seen; switch on 'Amazon EventBridge' in the properties of "
                f"{input_bucket.bucket_name} and acknowledge this, or no upload ever starts a run",
            )

    def _own_input(self, key: kms.IKey | None, removal_policy: RemovalPolicy) -> s3.Bucket:
        bucket = self._own_bucket("Input", key, removal_policy, lifecycle_rules=[])
        _tell_eventbridge(bucket)
        return bucket

    def _own_output(self, key: kms.IKey | None, removal_policy: RemovalPolicy) -> s3.Bucket:
        # In a versioned bucket an expired object is only hidden: its version has to go, too.
        rules = [
            s3.LifecycleRule(
                id="ExpireRunFiles",
                prefix=RUNS,
                expiration=_RUN_FILES,
                noncurrent_version_expiration=_A_DAY,
            ),
            s3.LifecycleRule(
                id="RemoveMarkersOfRunFiles", prefix=RUNS, expired_object_delete_marker=True
            ),
        ]
        return self._own_bucket("Output", key, removal_policy, lifecycle_rules=rules)

    def _own_bucket(
        self,
        construct_id: str,
        key: kms.IKey | None,
        removal_policy: RemovalPolicy,
        *,
        lifecycle_rules: Sequence[s3.LifecycleRule],
    ) -> s3.Bucket:
        access_logs = self._access_logs
        prefix = f"{self._pipeline_id}/{construct_id.lower()}/" if access_logs is not None else None
        bucket = s3.Bucket(
            self,
            construct_id,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            bucket_key_enabled=True if key is not None else None,
            encryption=s3.BucketEncryption.S3_MANAGED if key is None else s3.BucketEncryption.KMS,
            encryption_key=key,
            enforce_ssl=True,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="AbortUnfinishedUploads",
                    abort_incomplete_multipart_upload_after=_UNFINISHED_UPLOADS,
                ),
                *lifecycle_rules,
            ],
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            removal_policy=removal_policy,
            server_access_logs_bucket=access_logs,
            server_access_logs_prefix=prefix,
            versioned=True,
        )
        if access_logs is not None and is_of_account(access_logs):
            Annotations.of(bucket).acknowledge_warning(_POLICY_NOT_SEEN)
        return bucket


def _tell_eventbridge(bucket: s3.IBucket) -> None:
    """Let one of our buckets send its events.

    The L2's event_bridge_enabled brings a custom resource and its Lambda function.
    """
    cast(
        s3.CfnBucket, bucket.node.default_child
    ).notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
        event_bridge_configuration=s3.CfnBucket.EventBridgeConfigurationProperty(
            event_bridge_enabled=True
        )
    )


def bucket_identity(bucket: s3.IBucket) -> str:
    """Return what two constructs of one bucket have in common: its name, if that is known."""
    made_here = cast(s3.CfnBucket | None, bucket.node.default_child)
    name = None if made_here is None else made_here.bucket_name
    return bucket.bucket_name if name is None or is_token(name) else name


def _check_events(input_bucket: s3.IBucket) -> None:
    if input_bucket.node.try_find_child(_L2_NOTIFICATIONS) is not None:
        return
    if cast(s3.CfnBucket, input_bucket.node.default_child).notification_configuration is None:
        raise ValueError(
            f"input_bucket must send its events to EventBridge, got {input_bucket.node.path} that "
            "does not; pass event_bridge_enabled=True to the Bucket, or no run would ever start"
        )


def _check_overlap(
    input_bucket: s3.IBucket, output_bucket: s3.IBucket, input_prefix: str, output_prefix: str
) -> None:
    if bucket_identity(input_bucket) != bucket_identity(output_bucket):
        return
    for prefix in (output_prefix, RUNS, REPORTS):
        if prefix.startswith(input_prefix) or input_prefix.startswith(prefix):
            raise ValueError(
                f"the prefix of uploads must not overlap {prefix!r}, where output goes in the same "
                f"bucket, got {input_prefix!r}; choose another prefix or another bucket, "
                "or the pipeline would score its own output"
            )
