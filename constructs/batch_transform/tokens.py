"""Which values only deployment knows."""

# What CDK encodes a token as: text in strings and lists, and numbers below any that one writes.
_IN_TEXT = "${Token["
_IN_LIST = "#{Token["
_NUMBERS_END = -1e288


class Later(str):
    """Stands for a text that only deployment knows where CDK is not asked for a token of it."""

    __slots__ = ()


def is_token(value: object) -> bool:
    """Whether a value is a token, asking CDK only about one that looks like it.

    Each question is a round trip to another process, and a request has dozens of members.
    """
    match value:
        case Later():
            return True
        case str():
            return _IN_TEXT in value and _is_unresolved(value)
        case list():
            return any(_IN_LIST in str(part) for part in value) and _is_unresolved(value)
        case int() | float():
            return value < _NUMBERS_END and _is_unresolved(value)
        case None | dict():
            return False
        case _:
            return _is_unresolved(value)


def _is_unresolved(value: object) -> bool:
    from aws_cdk import Token  # with it CDK is imported, of which only tokens are made

    return Token.is_unresolved(value)
