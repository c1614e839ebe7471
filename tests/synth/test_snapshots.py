"""The whole template, so that a change of it is seen in review.

After a wanted change: `pytest tests/synth/test_snapshots.py --snapshot-update`.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.json import JSONSnapshotExtension


@pytest.mark.parametrize("which", ["nothing_on", "everything_on"])
def test_the_template_is_as_reviewed(
    which: str,
    synthesize: Callable[[Any], dict[str, Any]],
    request: pytest.FixtureRequest,
    snapshot: SnapshotAssertion,
) -> None:
    template = synthesize(request.getfixturevalue(which))
    # Assets change with the Lambdas, and the metadata only says where they lie.
    text = re.sub(r"\b[0-9a-f]{64}\b", "<asset>", json.dumps(template))
    reviewed = json.loads(text, object_hook=_without_metadata)

    assert reviewed == snapshot(extension_class=JSONSnapshotExtension)


def _without_metadata(value: dict[str, Any]) -> dict[str, Any]:
    if "Type" in value and "Metadata" in value:
        return {name: part for name, part in value.items() if name != "Metadata"}
    return value
