"""An SSM parameter that names the model, read when a run begins: a promotion is no deployment."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from aws_cdk import Stack
from constructs import Construct

from batch_transform.deployed import place_of
from batch_transform.statements import Statement, allow

if TYPE_CHECKING:
    from aws_cdk import aws_ssm as ssm

_NOT_FOUND = ("Ssm.ParameterNotFound", "Ssm.ParameterNotFoundException")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelParameter:
    """The parameter, and the variable of the state machine that holds its value for a whole run.

    A variable, and not a member of what the states hand on: all steps and all their retries see it,
    and no state has to pass it on.
    """

    name: str
    arn: str
    variable: str

    @property
    def expression(self) -> str:
        """The JSONata that is the model's name in a run."""
        return f"{{% ${self.variable} %}}"


def model_parameter(scope: Construct, parameter: "str | ssm.IStringParameter") -> ModelParameter:
    """Return the parameter as the state machine of a pipeline in `scope` reads it."""
    stack = Stack.of(scope)
    if isinstance(parameter, str):
        name = parameter
        arn = place_of(scope).arn("ssm", f"parameter/{name.removeprefix('/')}")
    else:
        name, arn = parameter.parameter_name, parameter.parameter_arn
    # By the name and not by the step, so that two steps of one parameter read it once.
    digest = hashlib.sha256(json.dumps(stack.resolve(name), sort_keys=True).encode()).hexdigest()
    return ModelParameter(name=name, arn=arn, variable=f"model_{digest[:8]}")


def read_statements(parameters: Iterable[ModelParameter]) -> list[Statement]:
    """Return what the state machine needs to read them; none without parameters."""
    arns = list(dict.fromkeys(parameter.arn for parameter in parameters))
    return [allow(actions=["ssm:GetParameter"], resources=arns)] if arns else []


def read_states(
    parameters: Sequence[ModelParameter],
    *,
    then: str,
    retry: Sequence[dict[str, Any]],
    catch: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return the states that read each parameter once, in the order in which they run.

    They hand on their input, and end in the state `then`.
    """
    distinct = list({parameter.variable: parameter for parameter in parameters}.values())
    names = [f"ReadModel{number}" for number in range(1, len(distinct) + 1)]
    return {
        name: {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:ssm:getParameter",
            "Arguments": {"Name": parameter.name},
            "Assign": {parameter.variable: "{% $states.result.Parameter.Value %}"},
            "Output": "{% $states.input %}",
            # What does not exist is not there in a minute either.
            "Retry": [{"ErrorEquals": [*_NOT_FOUND], "MaxAttempts": 0}, *retry],
            "Catch": list(catch),
            "Next": following,
        }
        for parameter, (name, following) in zip(distinct, pairwise([*names, then]), strict=True)
    }
