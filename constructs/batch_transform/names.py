"""The names that a pipeline or a task gives to what it starts, and prefixes of keys."""

import hashlib
import re
from typing import TYPE_CHECKING

from batch_transform.tokens import is_token

if TYPE_CHECKING:
    from constructs import Construct

_NAME = re.compile(r"[a-z0-9](-*[a-z0-9])*")
_HASH_LENGTH = 8


def checked_name(what: str, name: str, *, length: int) -> str:
    """Return a name that can begin that of a transform job.

    :param what: the parameter, for the message.
    :raises ValueError: it cannot, or is too long for what follows it.
    """
    if is_token(name):
        raise ValueError(
            f"{what} must be known at synth, got a token; write it out, or leave it out"
        )
    if len(name) > length or not _NAME.fullmatch(name):
        raise ValueError(
            f"{what} must be lower-case letters, digits and inner hyphens, at most {length} "
            f"characters, got {name!r}; shorten it, or leave it out"
        )
    return name


def check_prefix(what: str, prefix: str, *, better: str, otherwise: str) -> None:
    """Refuse a prefix that is no folder's.

    :param what: is it, for the message.
    :param better: a name to propose when it has none.
    :param otherwise: what would happen.
    :raises ValueError: it does not end with `/`, or begins with it.
    """
    if is_token(prefix) or (prefix.endswith("/") and not prefix.startswith("/")):
        return
    proposed = f"{prefix.strip('/') or better}/"
    raise ValueError(
        f"{what} must end with '/' and not start with it, got {prefix!r}; use {proposed!r}, or "
        f"{otherwise}"
    )


def derived_name(construct: "Construct", *, length: int) -> str:
    """Return `<construct id>-<hash>`: readable, and another one for every path and stack.

    Lower case, because SageMaker's ARNs are, and policies name jobs by it.
    """
    from aws_cdk import Stack  # whoever has a construct has imported CDK

    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", construct.node.id).lower()
    slug = re.sub(r"[^a-z0-9]+", "-", words)[: length - _HASH_LENGTH - 1].strip("-")
    stack_name = Stack.of(construct).stack_name
    identity = construct.node.path
    if not is_token(stack_name):
        identity = f"{stack_name}\n{identity}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:_HASH_LENGTH]
    return f"{slug}-{digest}" if slug else digest


def pascal(name: str) -> str:
    """Return a name with hyphens as CloudFormation takes it: `input-bucket`, `InputBucket`."""
    return "".join(word.capitalize() for word in name.split("-"))
