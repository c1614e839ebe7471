from collections.abc import Callable

import pytest
from aws_cdk import Aws, Token

from batch_transform.tokens import is_token


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda: Aws.REGION, id="string"),
        pytest.param(lambda: f"arn:{Aws.PARTITION}:s3:::data", id="part of a string"),
        pytest.param(lambda: Token.as_number({"Ref": "Count"}), id="number"),
        pytest.param(lambda: Token.as_list({"Ref": "Subnets"}), id="list"),
        pytest.param(lambda: Token.as_any({"Ref": "Any"}), id="object"),
    ],
)
def test_what_cdk_encodes_is_a_token(value: Callable[[], object]) -> None:
    made = value()

    assert is_token(made)
    assert Token.is_unresolved(made)


@pytest.mark.parametrize(
    "value", ["", "${Tokens}", 0, -1.5, True, None, {}, {"A": 1}, [], ["a", "b"]]
)
def test_what_is_written_out_is_none(value: object) -> None:
    assert not is_token(value)
