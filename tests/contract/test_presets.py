"""The presets of TransformSettings, rendered as requests and carried out by the engine."""

import pytest

from batch_transform import TransformSettings
from batch_transform.request import check_settings
from transform_engine.records import Recipe
from transform_engine.settings import settings_for
from transform_engine.spec import Readings

ROWS = b"7,blue,12\n8,red,30\n"
LINES = b'{"id":7,"x":[1,2]}\n{"id":8,"x":[3,4]}\n'
KEPT = b'{"SageMakerOutput":0.9,"id":7,"x":[1,2]}\n{"SageMakerOutput":0.1,"id":8,"x":[3,4]}\n'


@pytest.mark.parametrize(
    ("settings", "data", "sent", "replies", "output"),
    [
        pytest.param(
            TransformSettings.csv(id_column=0),
            ROWS,
            b"blue,12\nred,30\n",
            b"0.9\n0.1\n",
            b"7,0.9\n8,0.1\n",
            id="CSV with an id",
        ),
        pytest.param(
            TransformSettings.csv(id_column=0, answer_columns=2),
            ROWS,
            b"blue,12\nred,30\n",
            b"0.9,yes\n0.1,no\n",
            b"7,0.9,yes\n8,0.1,no\n",
            id="CSV with an id and answers of two columns",
        ),
        pytest.param(
            TransformSettings.csv(id_column=0, keep_input=True),
            ROWS,
            b"blue,12\nred,30\n",
            b"0.9\n0.1\n",
            b"7,blue,12,0.9\n8,red,30,0.1\n",
            id="CSV with an id and whole rows",
        ),
        pytest.param(
            TransformSettings.csv(id_column=1, input_filter="$[0,2]"),
            ROWS,
            b"7,12\n8,30\n",
            b"0.9\n0.1\n",
            b"blue,0.9\nred,0.1\n",
            id="CSV with the id in the middle",
        ),
        pytest.param(
            TransformSettings.csv(keep_input=True),
            ROWS,
            ROWS,
            b"0.9\n0.1\n",
            b"7,blue,12,0.9\n8,red,30,0.1\n",
            id="CSV, whole rows seen and kept",
        ),
        pytest.param(
            TransformSettings.csv(input_filter="$[2]"),
            ROWS,
            b"12\n30\n",
            b"0.9\n0.1\n",
            b"0.9\n0.1\n\n",  # one reply as it is, and a line feed
            id="CSV, answers alone",
        ),
        pytest.param(
            TransformSettings.json_lines(id_member="id"),
            LINES,
            LINES,
            b"0.9\n0.1\n",
            b'{"SageMakerOutput":0.9,"id":7}\n{"SageMakerOutput":0.1,"id":8}\n',
            id="JSON Lines with an id",
        ),
        pytest.param(
            TransformSettings.json_lines(id_member="id", input_filter="$.x"),
            LINES,
            b"[1,2]\n[3,4]\n",
            b"0.9\n0.1\n",
            b'{"SageMakerOutput":0.9,"id":7}\n{"SageMakerOutput":0.1,"id":8}\n',
            id="JSON Lines with an id and the features alone",
        ),
        pytest.param(
            TransformSettings.json_lines(keep_input=True),
            LINES,
            LINES,
            b"0.9\n0.1\n",
            KEPT,
            id="JSON Lines, all kept",
        ),
    ],
)
def test_the_model_sees_and_the_output_keeps_what_the_preset_says(
    settings: TransformSettings, data: bytes, sent: bytes, replies: bytes, output: bytes
) -> None:
    check_settings(settings, model_name="churn", instance_type="ml.m5.large", instance_count=1)
    recipe = Recipe(settings_for(settings.to_request(), {}, Readings()), started_at=0)
    recipe.check()
    packer = recipe.packer()

    (payload,) = [*packer.feed(data), *packer.end()]

    assert payload.body == sent
    if recipe.reads_replies:
        assert b"".join(recipe.output(payload, replies)) == output
    else:
        assert recipe.plain_output([replies]) == output
