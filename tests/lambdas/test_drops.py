import json
from pathlib import Path

import pytest

from transform_lambdas.drops import KEY_LIMIT_BYTES, Drop

EVENT = json.loads((Path(__file__).parents[1] / "events" / "object_created.json").read_text())


def test_a_drop_is_read_from_the_event_as_s3_sends_it() -> None:
    assert Drop.from_event(EVENT) == Drop(
        key="input/été 100%+1.csv",
        order="00617F08299329D18900000000000000",
        size=2048,
        etag="d41d8cd98f00b204e9800998ecf8427e",
        version_id="IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
        dropped_at="2021-11-12T00:00:00.000Z",
    )


def test_a_shorter_sequencer_is_compared_as_if_filled_up_with_zeros() -> None:
    def order(sequencer: str) -> str:
        event = json.loads(json.dumps(EVENT))
        event["detail"]["object"]["sequencer"] = sequencer
        return Drop.from_event(event).order

    assert order("0055AED6DCD9028") < order("0055AED6DCD90281E5") < order("0055AED6DCD9029")


def test_a_drop_survives_json() -> None:
    drop = Drop.from_event(EVENT)
    assert Drop.from_dict(json.loads(json.dumps(drop.to_dict()))) == drop


@pytest.mark.parametrize(
    ("key", "size", "is_marker"),
    [("input/", 0, True), ("input/day=1/", 0, True), ("input/a", 0, False), ("input/b/", 3, False)],
)
def test_only_an_empty_object_that_ends_in_a_slash_is_a_folder(
    key: str, size: int, is_marker: bool
) -> None:
    assert Drop(key, "1", size, "", "", "").is_folder_marker is is_marker


def test_an_empty_object_holds_nothing_to_score() -> None:
    problem = Drop("input/_SUCCESS", "1", 0, "", "", "").problem
    assert problem is not None
    assert "name it as the batch's marker" in problem


def test_a_key_whose_output_would_have_too_long_a_key_says_so() -> None:
    assert Drop("é" * (KEY_LIMIT_BYTES // 2), "1", 1, "", "", "").problem is None
    problem = Drop("é" * KEY_LIMIT_BYTES, "1", 1, "", "", "").problem
    assert problem is not None
    assert "upload it under a shorter key" in problem
