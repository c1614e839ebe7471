from typing import Any

import pytest
from aws_cdk import Duration, Size

from batch_transform import BatchPolicy


def test_the_defaults_are_a_minute_a_thousand_objects_ten_gibibytes() -> None:
    assert BatchPolicy().to_environment() == {
        "MAX_WAIT_S": "60",
        "MAX_OBJECTS": "1000",
        "MAX_BYTES": str(10 * 2**30),
        "MARKER": "",
    }


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        pytest.param({"max_wait": Duration.days(2)}, "or a marker", id="waits too long"),
        pytest.param({"max_objects": 0}, "more than one batch", id="no object"),
        pytest.param({"max_objects": 10_001}, "more than one batch", id="too many objects"),
        pytest.param({"max_bytes": Size.kibibytes(0)}, "leave it out", id="no byte"),
        pytest.param({"marker": "done/_SUCCESS"}, "use for example '_SUCCESS'", id="folder"),
        pytest.param({"marker": ""}, "use for example '_SUCCESS'", id="empty marker"),
    ],
)
def test_fails_when_no_batch_could_be_due(arguments: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        BatchPolicy(**arguments)
