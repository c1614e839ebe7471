"""Every member of CreateTransformJob with its limits, as data (reference §1.1 to §1.7).

`tests/request` holds this table to botocore's model of the API.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from transform_request.instance_types import INSTANCE_TYPES, may_be_new, nearest


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A string; `means` says in words what `pattern` demands."""

    least: int = 0
    most: int
    pattern: re.Pattern[str] | None = None
    means: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """A whole number; `most` None is no upper limit in the API's own model."""

    least: int
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Flag:
    """True or False."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One of some strings.

    :param refused: are in AWS's shared enum but unusable here.
    :param may_be_new: says whether AWS may have added a value since; `None` if it adds none.
    :param nearest: the values that look most like another.
    """

    values: tuple[str, ...]
    refused: tuple[str, ...] = ()
    may_be_new: Callable[[str], bool] | None = None
    nearest: Callable[[str], list[str]] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A structure."""

    members: Mapping[str, "Kind"]
    required: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """A list of one kind."""

    of: "Kind"
    most: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """A map of strings."""

    key: Text
    value: Text
    most: int = field(default=16)


Kind = Text | Number | Flag | Choice | Group | Listing | Pairs

_JOB_NAME = Text(
    least=1,
    most=63,
    pattern=re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"),
    means="letters, digits and inner hyphens",
)
_MODEL_NAME = Text(
    most=63,
    pattern=re.compile(r"[a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?"),
    means="letters, digits and inner hyphens",
)
_S3_URI = Text(
    most=1024,
    pattern=re.compile(r"(https|s3)://([^/]+)/?(.*)"),
    means="a URI such as s3://bucket/prefix/",
)
_MEDIA_TYPE = Text(most=256, pattern=re.compile(r".*"), means="one line")
_KMS_KEY = Text(
    most=2048,
    pattern=re.compile(r"[a-zA-Z0-9:/_-]*"),
    means="a key id, key ARN, alias name or alias ARN",
)
_FILTER = Text(most=63)
_EXPERIMENT = Text(
    least=1,
    most=120,
    pattern=re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,119}"),
    means="letters, digits and inner hyphens",
)
# \w stands for AWS's \p{L}, \p{N} and _, \s for its \p{Z}: Python's re has no \p.
_TAG = re.compile(r"[\w\s.:/=+\-@]*")
_TAG_MEANS = "letters, digits, spaces and _ . : / = + - @"

REQUEST = Group(
    required=(
        "TransformJobName",
        "ModelName",
        "TransformInput",
        "TransformOutput",
        "TransformResources",
    ),
    members={
        "TransformJobName": _JOB_NAME,
        "ModelName": _MODEL_NAME,
        "MaxConcurrentTransforms": Number(least=0),
        "ModelClientConfig": Group(
            members={
                "InvocationsTimeoutInSeconds": Number(least=1, most=3600),
                "InvocationsMaxRetries": Number(least=0, most=3),
            }
        ),
        "MaxPayloadInMB": Number(least=0),
        "BatchStrategy": Choice(values=("MultiRecord", "SingleRecord")),
        "Environment": Pairs(
            key=Text(
                most=1024,
                pattern=re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,1023}"),
                means="letters, digits and _, not starting with a digit",
            ),
            value=Text(most=10240),
            most=16,
        ),
        "TransformInput": Group(
            required=("DataSource",),
            members={
                "DataSource": Group(
                    required=("S3DataSource",),
                    members={
                        "S3DataSource": Group(
                            required=("S3DataType", "S3Uri"),
                            members={
                                "S3DataType": Choice(
                                    values=("ManifestFile", "S3Prefix"),
                                    refused=("AugmentedManifestFile", "Converse"),
                                ),
                                "S3Uri": _S3_URI,
                            },
                        )
                    },
                ),
                "ContentType": _MEDIA_TYPE,
                "CompressionType": Choice(values=("None", "Gzip")),
                "SplitType": Choice(values=("None", "Line", "RecordIO", "TFRecord")),
            },
        ),
        "TransformOutput": Group(
            required=("S3OutputPath",),
            members={
                "S3OutputPath": _S3_URI,
                "Accept": _MEDIA_TYPE,
                "AssembleWith": Choice(values=("None", "Line")),
                "KmsKeyId": _KMS_KEY,
            },
        ),
        "DataCaptureConfig": Group(
            required=("DestinationS3Uri",),
            members={
                "DestinationS3Uri": _S3_URI,
                "KmsKeyId": _KMS_KEY,
                "GenerateInferenceId": Flag(),
            },
        ),
        "TransformResources": Group(
            required=("InstanceType", "InstanceCount"),
            members={
                "InstanceType": Choice(
                    values=INSTANCE_TYPES, may_be_new=may_be_new, nearest=nearest
                ),
                "InstanceCount": Number(least=1),
                "VolumeKmsKeyId": _KMS_KEY,
                "TransformAmiVersion": Text(
                    least=1,
                    most=63,
                    pattern=re.compile(r"[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*"),
                    means="words joined by hyphens, such as al2-ami-sagemaker-batch-gpu-535",
                ),
            },
        ),
        "DataProcessing": Group(
            members={
                "InputFilter": _FILTER,
                "OutputFilter": _FILTER,
                "JoinSource": Choice(values=("Input", "None")),
            }
        ),
        "Tags": Listing(
            most=50,
            of=Group(
                required=("Key", "Value"),
                members={
                    "Key": Text(least=1, most=128, pattern=_TAG, means=_TAG_MEANS),
                    "Value": Text(most=256, pattern=_TAG, means=_TAG_MEANS),
                },
            ),
        ),
        "ExperimentConfig": Group(
            members={
                "ExperimentName": _EXPERIMENT,
                "TrialName": _EXPERIMENT,
                "TrialComponentDisplayName": _EXPERIMENT,
                "RunName": _EXPERIMENT,
            }
        ),
    },
)
