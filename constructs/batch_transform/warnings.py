"""What a pipeline or task is warned of at synth, each with an id to acknowledge it by."""

from collections.abc import Iterable

from aws_cdk import Annotations
from constructs import Construct

from transform_request.advice import Advice


def warn(scope: Construct, advice: Iterable[Advice]) -> None:
    """Add a warning for everything that jobs may be regretted for."""
    for each in advice:
        Annotations.of(scope).add_warning_v2(each.name, each.text)
