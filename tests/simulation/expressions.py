"""DynamoDB's expressions, as far as the ledger writes them, compiled to functions once each."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

Item = dict[str, Any]
Values = Mapping[str, Any]
Names = Mapping[str, str]
Condition = Callable[[Item, Values, Names], bool]
Operand = Callable[[Item, Values, Names], Any]
Change = Callable[[Item, Item, Values, Names], None]

_TOKEN = re.compile(r"\s*(<>|<=|>=|[-=<>+(),]|[#:]?\w+)")
_ABSENT = object()
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: bool(left == right),
    "<>": lambda left, right: bool(left != right),
    "<": lambda left, right: bool(left < right),
    "<=": lambda left, right: bool(left <= right),
    ">": lambda left, right: bool(left > right),
    ">=": lambda left, right: bool(left >= right),
}


class _Tokens:
    def __init__(self, text: str) -> None:
        self._found = [*self._cut(text), ""]
        self._at = 0

    @staticmethod
    def _cut(text: str) -> Iterator[str]:
        at = 0
        text = text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise SyntaxError(f"an expression must be one the ledger writes, got {text!r}")
            yield match.group(1)
            at = match.end()

    @property
    def next(self) -> str:
        return self._found[self._at]

    def take(self) -> str:
        self._at += 1
        return self._found[self._at - 1]

    def accept(self, token: str) -> bool:
        if self.next.upper() != token:
            return False
        self._at += 1
        return True

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise SyntaxError(f"an expression must go on with {token!r}, got {self.next!r}")


@cache
def condition(text: str) -> Condition:
    """Compile a ConditionExpression."""
    tokens = _Tokens(text)
    compiled = _any(tokens)
    tokens.expect("")
    return compiled


def _any(tokens: _Tokens) -> Condition:
    parts = [_all(tokens)]
    while tokens.accept("OR"):
        parts.append(_all(tokens))
    return lambda item, values, names: any(part(item, values, names) for part in parts)


def _all(tokens: _Tokens) -> Condition:
    parts = [_one(tokens)]
    while tokens.accept("AND"):
        parts.append(_one(tokens))
    return lambda item, values, names: all(part(item, values, names) for part in parts)


def _one(tokens: _Tokens) -> Condition:
    if tokens.accept("NOT"):
        negated = _one(tokens)
        return lambda item, values, names: not negated(item, values, names)
    if tokens.accept("("):
        inner = _any(tokens)
        tokens.expect(")")
        return inner
    if tokens.next in ("attribute_not_exists", "attribute_exists"):
        wanted = tokens.take() == "attribute_exists"
        tokens.expect("(")
        operand = _operand(tokens)
        tokens.expect(")")
        return lambda item, values, names: (operand(item, values, names) is not _ABSENT) == wanted
    left = _operand(tokens)
    if tokens.accept("IN"):
        tokens.expect("(")
        choices = [_operand(tokens)]
        while tokens.accept(","):
            choices.append(_operand(tokens))
        tokens.expect(")")
        return lambda item, values, names: (
            left(item, values, names) in [choice(item, values, names) for choice in choices]
        )
    compare = _COMPARE[tokens.take()]
    right = _operand(tokens)

    def check(item: Item, values: Values, names: Names) -> bool:
        one, other = left(item, values, names), right(item, values, names)
        if one is _ABSENT or other is _ABSENT:
            return False
        return compare(one, other)

    return check


def _operand(tokens: _Tokens) -> Operand:
    token = tokens.take()
    if token == "if_not_exists":
        tokens.expect("(")
        first = _operand(tokens)
        tokens.expect(",")
        second = _operand(tokens)
        tokens.expect(")")

        def either(item: Item, values: Values, names: Names) -> Any:
            found = first(item, values, names)
            return second(item, values, names) if found is _ABSENT else found

        return either
    if token.startswith(":"):
        return lambda item, values, names: values[token]
    if token.startswith("#"):
        return lambda item, values, names: item.get(names[token], _ABSENT)
    return lambda item, values, names: item.get(token, _ABSENT)


@cache
def update(text: str) -> Change:
    """Compile an UpdateExpression; its operands are read before anything is changed."""
    tokens = _Tokens(text)
    changes: list[Change] = []
    while tokens.next:
        clause = tokens.take().upper()
        while True:
            name = tokens.take()
            if clause == "REMOVE":
                changes.append(_removal(name))
            elif clause == "SET":
                tokens.expect("=")
                changes.append(_assignment(name, _sum(tokens)))
            else:
                raise SyntaxError(f"an update must be SET or REMOVE, got {clause} in {text!r}")
            if not tokens.accept(","):
                break

    def apply(item: Item, before: Item, values: Values, names: Names) -> None:
        for change in changes:
            change(item, before, values, names)

    return apply


def _sum(tokens: _Tokens) -> Operand:
    left = _operand(tokens)
    if not tokens.accept("+"):
        return left
    right = _operand(tokens)
    return lambda item, values, names: left(item, values, names) + right(item, values, names)


def _assignment(name: str, operand: Operand) -> Change:
    def assign(item: Item, before: Item, values: Values, names: Names) -> None:
        item[names.get(name, name)] = operand(before, values, names)

    return assign


def _removal(name: str) -> Change:
    return lambda item, before, values, names: item.pop(names.get(name, name), None) and None
