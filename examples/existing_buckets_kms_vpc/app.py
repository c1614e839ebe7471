"""What a regulated account has already: buckets, one KMS key, a VPC, a topic, a boundary for roles.

It is synthesized only, since the names are those of nobody. Nothing that is given is changed: the
pipeline's roles get permissions of their own, and what has to be true of the rest is said by a
warning, which is acknowledged here once it is.
"""

from dataclasses import replace
from pathlib import Path

from aws_cdk import Annotations, App, Environment, PermissionsBoundary, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns

from batch_transform import (
    BatchTransform,
    FunctionsVpc,
    ModelVpc,
    Monitoring,
    TransformModel,
    TransformSettings,
    Uploads,
)

EXAMPLES = Path(__file__).resolve().parents[1]
OURS = "eu-west-1:111122223333"

app = App()
stack = Stack(
    app,
    "ExistingBuckets",
    env=Environment(account="111122223333", region="eu-west-1"),
    permissions_boundary=PermissionsBoundary.from_name("workloads"),
)
key = kms.Key.from_key_arn(
    stack, "Key", f"arn:aws:kms:{OURS}:key/1234abcd-12ab-34cd-56ef-123456789"
)
arrivals, results = (
    s3.Bucket.from_bucket_attributes(
        stack, construct_id, bucket_arn=f"arn:aws:s3:::{name}", encryption_key=key
    )
    for construct_id, name in (("Arrivals", "claims-arrivals"), ("Results", "claims-results"))
)
vpc = ec2.Vpc.from_vpc_attributes(
    stack,
    "Vpc",
    vpc_id="vpc-0123456789abcdef0",
    availability_zones=["eu-west-1a", "eu-west-1b"],
    private_subnet_ids=["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
)
on_call = sns.Topic.from_topic_arn(stack, "OnCall", f"arn:aws:sns:{OURS}:on-call")

pipeline = BatchTransform(
    stack,
    "Claims",
    model=TransformModel.from_artifact(
        EXAMPLES / "quick_start" / "model",
        EXAMPLES / "image",
        network_isolation=True,
        vpc=ModelVpc(vpc=vpc),
    ),
    instance_type="ml.m5.large",
    settings=replace(TransformSettings.csv(id_column=0), tags={"cost-center": "claims"}),
    input_bucket=arrivals,
    output_bucket=results,
    uploads=Uploads(prefix="claims/", suffix=".csv"),
    encryption_key=key,
    functions_vpc=FunctionsVpc(vpc=vpc),
    monitoring=Monitoring(topic=on_call),
)
# The bucket's properties say "Amazon EventBridge: On".
Annotations.of(pipeline).acknowledge_warning("@batch-transform:eventsOfImportedBucket")
# The key's policy has the statements of docs/encryption.md.
Annotations.of(pipeline).acknowledge_warning("@batch-transform:policyOfImportedKey")
app.synth()
