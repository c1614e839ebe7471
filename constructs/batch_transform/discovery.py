"""By what a client finds a pipeline: outputs of the stack, and parameters in SSM."""

import json
import re
from collections.abc import Mapping
from typing import Any

from aws_cdk import CfnOutput, CfnResource, Stack
from constructs import Construct

from batch_transform.names import pascal

# What a person looks for after a deployment; programs read the parameters.
_OUTPUTS = ("input-bucket", "output-bucket", "state-machine-arn", "api-url")


class Discovery(Construct):
    """Publishes each fact as `/batch-transform/<pipeline_id>/<name>`, and some as stack outputs.

    What is known at synth stands together, as JSON under the name `settings`.

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
        settings: Mapping[str, Any],
    ) -> None:
        super().__init__(scope, construct_id)
        stack = Stack.of(self)
        first = stack.node.try_find_child(pascal(_OUTPUTS[0])) is None
        prefix = "" if first else re.sub(r"[^A-Za-z0-9]", "", scope.node.id)
        told = json.dumps(settings, separators=(",", ":"))
        for name, value in {**facts, "settings": told}.items():
            if name in _OUTPUTS:
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
