"""Which values only deployment knows."""

from aws_cdk import Token

# What CDK encodes a token as: text in strings and lists, and numbers below any that one writes.
_IN_TEXT = "${Token["
_IN_LIST = "#{Token["
_NUMBERS_END = -1e288


def is_token(value: object) -> bool:
    """Whether a value is a token, asking CDK only about one that looks like it.

    Each question is a round trip to another process, and a request has dozens of members.
    """
    match value:
        case str():
            return _IN_TEXT in value and Token.is_unresolved(value)
        case list():
            return any(_IN_LIST in str(part) for part in value) and Token.is_unresolved(value)
        case int() | float():
            return value < _NUMBERS_END and Token.is_unresolved(value)
        case None | dict():
            return False
        case _:
            return Token.is_unresolved(value)
