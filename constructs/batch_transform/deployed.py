"""Where resources are: the partition, region and account of a stack, and ARNs there."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from aws_cdk import Stack
from constructs import IConstruct


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stack is deployed; tokens, as far as only the deployment knows."""

    partition: str
    region: str
    account: str

    def arn(
        self, service: str, resource: str, *, region: str | None = None, account: str | None = None
    ) -> str:
        """Return an ARN.

        :param resource: with its type, as in `log-group:/aws/states/*`.
        :param region: Default: that of the stack. `account` likewise.
        """
        region = self.region if region is None else region
        account = self.account if account is None else account
        return f"arn:{self.partition}:{service}:{region}:{account}:{resource}"


_KNOWN: WeakKeyDictionary[IConstruct, Place] = WeakKeyDictionary()


def place_of(construct: IConstruct) -> Place:
    """Return where a construct's stack is deployed; CDK is asked once a stack."""
    place = _KNOWN.get(construct)
    if place is None:
        stack = Stack.of(construct)
        place = _KNOWN.get(stack) or Place(stack.partition, stack.region, stack.account)
        _KNOWN[stack] = _KNOWN[construct] = place
    return place
