"""By what a client finds a pipeline: outputs of the stack, and parameters in SSM."""

import re
from collections.abc import Mapping

from aws_cdk import CfnOutput, CfnResource, Stack
from constructs import Construct

from batch_transform.names import pascal


class Discovery(Construct):
    """Publishes each fact as `/batch-transform/<pipeline_id>/<name>` and as a stack output.

    The outputs have the facts' plain names (`InputBucket`) for the first pipeline of a stack, and
    begin with the construct's id (`ChurnInputBucket`) for those after it.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        pipeline_id: str,
        facts: Mapping[str, str],
    ) -> None:
        super().__init__(scope, construct_id)
        stack = Stack.of(self)
        first = all(stack.node.try_find_child(pascal(name)) is None for name in facts)
        prefix = "" if first else re.sub(r"[^A-Za-z0-9]", "", scope.node.id)
        for name, value in facts.items():
            CfnOutput(stack, f"{prefix}{pascal(name)}", value=value)
            CfnResource(
                self,
                pascal(name),
                type="AWS::SSM::Parameter",
                properties={
                    "Name": f"/batch-transform/{pipeline_id}/{name}",
                    "Type": "String",
                    "Value": value,
                },
            )
