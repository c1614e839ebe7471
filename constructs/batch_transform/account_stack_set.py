"""The baseline of an account in every account of an organization."""

import json
from collections.abc import Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

from aws_cdk import App, BootstraplessSynthesizer, CfnResource, Stack
from constructs import Construct

from batch_transform.account_baseline import AccountBaseline
from batch_transform.account_settings import AccountSettings

# Of a template that is a member of a request and no object in S3.
_TEMPLATE_BYTES = 51_200


class AccountBaselineStackSet(Construct):
    """Makes accounts ready that are there, and each that comes.

    It belongs into the organization's management account or, with `delegated`, into the account
    that is a delegated administrator of StackSets.

    :param organizational_units: their ids, such as `ou-ab12-cdefgh34`, or the root's.
    :param regions: where pipelines are to run. The first is the home of what an account has once,
        unless `settings` name another.
    :param settings: what each account gets; names and ARNs of what accounts have already must be
        the same in all. Default: `AccountSettings()`.
    :param delegated: it is not the management account that deploys this.
    :param retain: keeps the baseline of an account that leaves the organizational units.
    :raises ValueError: nothing to deploy to, or a template that is too large.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        organizational_units: Sequence[str],
        regions: Sequence[str],
        settings: AccountSettings | None = None,
        delegated: bool = False,
        retain: bool = True,
    ) -> None:
        super().__init__(scope, construct_id)
        for name, given in (
            ("organizational_units", organizational_units),
            ("regions", regions),
        ):
            if isinstance(given, str) or not given:
                raise ValueError(f"{name} must be a list of one or more, got {given!r}; name them")
        settings = settings or AccountSettings()
        if settings.home_region is None:
            settings = replace(settings, home_region=regions[0])
        elif settings.home_region not in regions:
            raise ValueError(
                f"home_region must be one of the regions, got {settings.home_region!r}; add it to "
                "them, or no account would have a boundary"
            )
        self.template = baseline_template(settings)
        body = json.dumps(self.template, separators=(",", ":"))
        if len(body.encode()) > _TEMPLATE_BYTES:
            raise ValueError(
                f"the template of a baseline must have at most {_TEMPLATE_BYTES} bytes, got "
                f"{len(body.encode())}; name fewer emails"
            )
        self.resource = CfnResource(
            self,
            "Resource",
            type="AWS::CloudFormation::StackSet",
            properties={
                "AutoDeployment": {"Enabled": True, "RetainStacksOnAccountRemoval": retain},
                "CallAs": "DELEGATED_ADMIN" if delegated else "SELF",
                "Capabilities": ["CAPABILITY_NAMED_IAM"],
                "Description": "Makes accounts ready for batch transform pipelines",
                "ManagedExecution": {"Active": True},
                "OperationPreferences": {
                    "FailureTolerancePercentage": 10,
                    "MaxConcurrentPercentage": 25,
                    "RegionConcurrencyType": "SEQUENTIAL",
                    "RegionOrder": [*regions],
                },
                "PermissionModel": "SERVICE_MANAGED",
                "StackInstancesGroup": [
                    {
                        "DeploymentTargets": {"OrganizationalUnitIds": [*organizational_units]},
                        "Regions": [*regions],
                    }
                ],
                "StackSetName": "batch-transform-account",
                "TemplateBody": body,
            },
        )


def baseline_template(settings: AccountSettings) -> dict[str, Any]:
    """Return the template of a baseline for whichever account and region it is deployed to."""
    with TemporaryDirectory() as folder:
        app = App(analytics_reporting=False, outdir=folder)
        stack = Stack(app, "Account", synthesizer=BootstraplessSynthesizer())
        AccountBaseline(stack, "Account", settings=settings)
        template: dict[str, Any] = app.synth().get_stack_by_name("Account").template
    return template
