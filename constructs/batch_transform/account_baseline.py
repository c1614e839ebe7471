"""Makes an account ready for pipelines, by a template that needs no `cdk bootstrap` before it."""

from collections.abc import Iterable, Mapping

from aws_cdk import CfnCondition, CfnResource, Fn
from constructs import Construct

from batch_transform.account_alerts import define_topic
from batch_transform.account_analyzer import define_analyzer
from batch_transform.account_boundary import BOUNDARY_NAME, define_boundary
from batch_transform.account_costs import define_anomalies, define_budget
from batch_transform.account_deployment import define_deployment
from batch_transform.account_facts import (
    ACCESS_LOG_BUCKET,
    ALERT_TOPIC_ARN,
    BOUNDARY_ARN,
    KEY_ARN,
    parameter_name,
)
from batch_transform.account_key import define_key
from batch_transform.account_logs import define_access_logs
from batch_transform.account_network import AccountNetwork
from batch_transform.account_settings import AccountSettings
from batch_transform.deployed import place_of
from batch_transform.names import pascal


class AccountBaseline(Construct):
    """What pipelines share in an account, once in each of its regions.

    A key, a bucket for access logs, a topic for alerts, a permissions boundary and a policy for
    deployments; on request a budget, alerts of unusual costs, and a VPC. Plain CloudFormation, so
    that it can be deployed before anything else, and by a StackSet:

        stack = Stack(app, "Account", synthesizer=BootstraplessSynthesizer())
        AccountBaseline(stack, "Account", settings=AccountSettings(emails=["ops@example.com"]))

    What there is it publishes in SSM under `/batch-transform-account/`, where `Account.of` looks.
    A pipeline needs none of it.

    :param settings: what to make, and what there is already. Default: `AccountSettings()`.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, settings: AccountSettings | None = None
    ) -> None:
        super().__init__(scope, construct_id)
        settings = settings or AccountSettings()
        self.key_arn = settings.key or define_key(self)
        self.access_log_bucket = settings.access_logs or define_access_logs(
            self, days=settings.access_log_days
        )
        self._topic_policy: CfnResource | None = None
        if settings.alerts is None:
            self.alert_topic_arn, self._topic_policy = define_topic(
                self, key_arn=self.key_arn, emails=settings.emails
            )
        else:
            self.alert_topic_arn = settings.alerts
        boundary = settings.boundary or BOUNDARY_NAME
        self.boundary_arn = place_of(self).arn("iam", f"policy/{boundary}", region="")
        self._define_global_parts(settings, boundary)
        if settings.analyzer:
            self._after_topic([define_analyzer(self, topic_arn=self.alert_topic_arn)])
        facts = {
            KEY_ARN: self.key_arn,
            ACCESS_LOG_BUCKET: self.access_log_bucket,
            ALERT_TOPIC_ARN: self.alert_topic_arn,
            BOUNDARY_ARN: self.boundary_arn,
        }
        if settings.vpc is not None:
            facts |= AccountNetwork(self, "Network", vpc=settings.vpc, key_arn=self.key_arn).facts
        self._publish(facts)

    def _define_global_parts(self, settings: AccountSettings, boundary: str) -> None:
        """Define what an account has once, whatever its regions."""
        policies = []
        if settings.boundary is None:
            policies.append(define_boundary(self))
        if settings.qualifier is not None:
            policies.append(
                define_deployment(
                    self,
                    qualifier=settings.qualifier,
                    stack_prefix=settings.stack_prefix,
                    boundary=boundary,
                )
            )
        costs = []
        if settings.budget_usd is not None:
            costs.append(
                define_budget(self, usd=settings.budget_usd, topic_arn=self.alert_topic_arn)
            )
        if settings.anomaly_usd is not None:
            costs += define_anomalies(
                self,
                usd=settings.anomaly_usd,
                monitor_arn=settings.anomaly_monitor,
                topic_arn=self.alert_topic_arn,
            )
        self._after_topic(costs)
        if settings.home_region is not None:
            at_home = CfnCondition(
                self,
                "AtHome",
                expression=Fn.condition_equals(place_of(self).region, settings.home_region),
            )
            for part in [*policies, *costs]:
                part.cfn_options.condition = at_home

    def _after_topic(self, publishers: Iterable[CfnResource]) -> None:
        """Let the topic admit those who publish to it before they try."""
        if self._topic_policy is not None:
            for publisher in publishers:
                publisher.add_resource_dependency(self._topic_policy)

    def _publish(self, facts: Mapping[str, str]) -> None:
        parameters = Construct(self, "Facts")
        for fact, value in facts.items():
            CfnResource(
                parameters,
                pascal(fact),
                type="AWS::SSM::Parameter",
                properties={"Name": parameter_name(fact), "Type": "String", "Value": value},
            )
