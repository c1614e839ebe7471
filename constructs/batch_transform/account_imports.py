"""Imported resources whose policies CDK cannot see, and which `AccountBaseline` has written."""

from typing import TYPE_CHECKING
from weakref import WeakSet

from aws_cdk import IResource

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_s3 as s3

_OF_ACCOUNTS: WeakSet[IResource] = WeakSet()


def note_of_account(resource: "kms.IKey | s3.IBucket") -> None:
    """Let a resource that an account publishes be used without a warning of its policy."""
    _OF_ACCOUNTS.add(resource)


def is_of_account(resource: "kms.IKey | s3.IBucket") -> bool:
    """Whether the policy of a resource is that of `AccountBaseline`."""
    return resource in _OF_ACCOUNTS
