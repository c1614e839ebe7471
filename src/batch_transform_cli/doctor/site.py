"""Where checks look: what is asked for in a place, what is deployed there, and the door to it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batch_transform_cli.doctor.findings import Finding
from batch_transform_cli.doctor.needs import Model, Needs
from batch_transform_cli.doctor.reader import Reader


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """A stack that is deployed: its status, and the physical ids of its resources."""

    status: str
    resources: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """One account and region.

    :ivar deployed: by stack name; stacks that are not deployed are left out.
    :ivar unread: the names of stacks that nothing is known of, because they could not be looked at.
    :ivar is_local: whether it is of a local cloud.
    :ivar is_first: whether it is the first region of its account that is looked at.
    """

    needs: Needs
    reader: Reader
    deployed: Mapping[str, Deployment]
    unread: frozenset[str] = frozenset()
    is_local: bool = False
    is_first: bool = True

    @property
    def region(self) -> str:
        """Its region."""
        return self.needs.place.region

    @property
    def account(self) -> str:
        """Its account."""
        return self.needs.place.account

    def role_of(self, model: Model) -> str | None:
        """Return the ARN of a model's role; `None` if it is not there yet."""
        if model.role is not None or model.made_role is None:
            return model.role
        deployment = self.deployed.get(model.stack)
        name = deployment.resources.get(model.made_role) if deployment else None
        partition = self.needs.place.partition
        return f"arn:{partition}:iam::{self.account}:role/{name}" if name else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One kind of check: on which things, and how one of them is looked at.

    :ivar items: the things, each with the name that a person knows it by.
    :ivar not_local: why a local cloud is not asked; empty if it is.
    """

    topic: str
    items: Callable[[Site], Mapping[str, Any]]
    examine: Callable[[Any, Site], Iterator[Finding]]
    not_local: str = ""
