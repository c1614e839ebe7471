"""What exists in AWS, and how a file names it: in place of the CDK objects that a program passes.

A key is its ARN, a bucket its name, a VPC its id. Each type of CDK's that a parameter may have has
its form here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeAlias, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Tag,
    ValidationInfo,
)
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

LIST, MEMBERS = "a list", "members"
_KINDS = (
    (bool, "true or false"),
    (int, "a whole number"),
    (float, "a number"),
    (str, "text"),
    (Sequence, LIST),
    (Mapping, MEMBERS),
)


class Entry(BaseModel):
    """Members of the file, all of which are known."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SsmParameter(Entry):
    """An SSM parameter that holds it, read by CloudFormation at every deployment."""

    ssm: str = Field(description="The parameter's name.")


class Existing(Protocol):
    """Makes what a program would import of what the file names."""

    def key(self, arn: str | SsmParameter) -> Any:
        """Return the KMS key of an ARN."""

    def bucket(self, name: "str | SsmParameter | BucketEntry") -> Any:
        """Return the bucket of a name."""

    def role(self, arn: str | SsmParameter) -> Any:
        """Return the IAM role of an ARN."""

    def repository(self, named: "RepositoryEntry") -> Any:
        """Return the ECR repository of a name in the stack's account and region."""

    def topic(self, arn: str | SsmParameter) -> Any:
        """Return the SNS topic of an ARN."""

    def function(self, arn: str | SsmParameter) -> Any:
        """Return the Lambda function of an ARN."""

    def vpc(self, vpc_id: str | SsmParameter) -> Any:
        """Return the VPC of an id."""

    def subnets(self, ids: Sequence[str | SsmParameter]) -> Any:
        """Return the selection of these subnets."""

    def security_group(self, group_id: str | SsmParameter) -> Any:
        """Return the security group of an id."""

    def schedule(self, when: "str | ScheduleEntry") -> Any:
        """Return the expression of a schedule."""

    def removal_policy(self, name: str) -> Any:
        """Return CDK's RemovalPolicy of a name."""

    def log_retention(self, days: int) -> Any:
        """Return CDK's RetentionDays of a number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a file is read with: the folder that its paths are relative to, and what exists."""

    folder: Path
    existing: Existing


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """What a member may be.

    :param read: the type that pydantic reads.
    :param kind: of value: text, a list, members.
    :param members: by which it is told from others that have members.
    """

    read: Any
    kind: str
    members: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Written:
    """Text of a certain form, refused in words instead of the pattern."""

    pattern: str
    rule: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Check the text after all else of its type."""
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Give editors the pattern."""
        return {**handler(core), "pattern": f"^({self.pattern})$"}

    def _check(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"must be {self.rule}, got {text!r}; correct it")
        return text


def list_of(item: Any) -> Any:
    """Return the type of a list of what is known only here."""
    return list[item]


def _kind(value: object) -> str | None:
    return next((kind for of, kind in _KINDS if isinstance(value, of)), None)


def either(forms: Sequence[Form]) -> Any:
    """Return what reads any of several: told apart by kind, and by which members are given."""
    if len(forms) == 1:
        return forms[0].read
    tags = {f"<{number}>": form for number, form in enumerate(forms)}
    kinds = dict.fromkeys(form.kind for form in forms)

    def choose(value: object) -> str | None:
        kind = _kind(value)
        fitting = {tag: form for tag, form in tags.items() if form.kind == kind}
        if not fitting:
            return None
        given = {*value} if isinstance(value, Mapping) else set()
        return max(fitting, key=lambda tag: len(given & fitting[tag].members))

    branches = tuple(Annotated[form.read, Tag(tag)] for tag, form in tags.items())
    return Annotated[
        Union[branches],  # noqa: UP007 # of a tuple
        Discriminator(
            choose,
            custom_error_type="kind",
            custom_error_message=f"must be {' or '.join(kinds)}",
        ),
    ]


# What a program passes as a CDK object.


def _or_parameter(pattern: str, rule: str) -> list[Form]:
    return [
        Form(read=Annotated[str, Written(pattern, rule)], kind="text"),
        Form(read=SsmParameter, kind=MEMBERS, members=frozenset(SsmParameter.model_fields)),
    ]


def _entry_form(entry: type[Entry]) -> Form:
    return Form(read=entry, kind=MEMBERS, members=frozenset(entry.model_fields))


_BUCKET = _or_parameter(
    r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "a bucket's plain name such as my-bucket"
)
_KEY = _or_parameter(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/\S+", "the ARN of a KMS key")
_ROLE = _or_parameter(r"arn:aws[a-z-]*:iam::\d{12}:role/\S+", "the ARN of a role")
_TOPIC = _or_parameter(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:\S+", "the ARN of a topic")
_FUNCTION = _or_parameter(
    r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:\d{12}:function:\S+", "the ARN of a function"
)
_VPC = _or_parameter(r"vpc-\w+", "the id of a VPC such as vpc-0abc")
_SUBNET = _or_parameter(r"subnet-\w+", "the id of a subnet such as subnet-0abc")
_GROUP = _or_parameter(r"sg-\w+", "the id of a security group such as sg-0abc")

if TYPE_CHECKING:
    _NamedBucket: TypeAlias = str | SsmParameter
    _NamedKey: TypeAlias = str | SsmParameter
    _Expression: TypeAlias = str
else:
    _NamedBucket = either(_BUCKET)
    _NamedKey = either(_KEY)
    _Expression = Annotated[str, Written(r"(cron|rate|at)\(.+\)", "a schedule such as rate(1 day)")]


class BucketEntry(Entry):
    """A bucket that exists, and the KMS key that encrypts it."""

    name: _NamedBucket
    encryption_key: _NamedKey | None = None


class RepositoryEntry(Entry):
    """A repository in the ECR of the stack's account and region."""

    repository: str = Field(description="The repository's name.")


class ScheduleEntry(Entry):
    """A schedule in a time zone."""

    expression: _Expression
    time_zone: str = Field(description="Such as Europe/Berlin.")


def _import(make: str, given: Any, info: ValidationInfo[Reading]) -> Any:
    return getattr(info.context.existing, make)(given)


def existing_forms(make: str, *forms: Form) -> list[Form]:
    """Return the forms with what makes the CDK object of each."""
    return [
        replace(form, read=Annotated[form.read, AfterValidator(partial(_import, make))])
        for form in forms
    ]


class _Unsayable:
    """Stands for what a program alone can pass: an object that it has defined."""


def _cdk(name: str) -> type:
    return type(name, (), {})


# The names that modules import CDK's types by; an annotation that has another one is an error.
CDK: Mapping[str, Any] = {
    "ec2": SimpleNamespace(
        IVpc=_cdk("IVpc"),
        SubnetSelection=_cdk("SubnetSelection"),
        ISecurityGroup=_cdk("ISecurityGroup"),
    ),
    "ecr": SimpleNamespace(IRepository=_cdk("IRepository")),
    "iam": SimpleNamespace(IRole=_cdk("IRole")),
    "kms": SimpleNamespace(IKey=_cdk("IKey")),
    "lambda_": SimpleNamespace(IFunction=_cdk("IFunction")),
    "logs": SimpleNamespace(RetentionDays=_cdk("RetentionDays")),
    "s3": SimpleNamespace(IBucket=_cdk("IBucket")),
    "sagemaker": SimpleNamespace(CfnModel=_Unsayable),
    "scheduler": SimpleNamespace(ScheduleExpression=_cdk("ScheduleExpression")),
    "sns": SimpleNamespace(ITopic=_cdk("ITopic")),
    "ssm": SimpleNamespace(IStringParameter=_Unsayable),
    "RemovalPolicy": _cdk("RemovalPolicy"),
}
RETENTION_DAYS = CDK["logs"].RetentionDays
SUBNETS = CDK["ec2"].SubnetSelection

CDK_FORMS: Mapping[type, list[Form]] = {
    _Unsayable: [],
    CDK["ec2"].IVpc: existing_forms("vpc", *_VPC),
    SUBNETS: existing_forms(
        "subnets",
        Form(read=Annotated[list_of(either(_SUBNET)), Field(min_length=1)], kind=LIST),
    ),
    CDK["ec2"].ISecurityGroup: existing_forms("security_group", *_GROUP),
    CDK["ecr"].IRepository: existing_forms("repository", _entry_form(RepositoryEntry)),
    CDK["iam"].IRole: existing_forms("role", *_ROLE),
    CDK["kms"].IKey: existing_forms("key", *_KEY),
    CDK["lambda_"].IFunction: existing_forms("function", *_FUNCTION),
    CDK["s3"].IBucket: existing_forms("bucket", *_BUCKET, _entry_form(BucketEntry)),
    CDK["scheduler"].ScheduleExpression: existing_forms(
        "schedule", Form(read=_Expression, kind="text"), _entry_form(ScheduleEntry)
    ),
    CDK["sns"].ITopic: existing_forms("topic", *_TOPIC),
    CDK["RemovalPolicy"]: existing_forms(
        "removal_policy",
        Form(read=Literal["RETAIN", "DESTROY", "RETAIN_ON_UPDATE_OR_DELETE"], kind="text"),
    ),
}
