"""What the values of a template come to, as far as that is known before a deployment."""

import re
from collections.abc import Mapping
from typing import Any, Final

from batch_transform_cli.doctor.findings import Place

_NAME = re.compile(r"\$\{(!?[^{}]+)\}")


class Unknown:
    """A value that only a deployment knows."""

    def __repr__(self) -> str:
        """Return what stands for it in a message."""
        return "?"


UNKNOWN: Final = Unknown()


class Values:
    """Resolves what stands in a template.

    :param parameters: the values of the template's parameters, as far as they are known.
    """

    def __init__(self, place: Place, parameters: Mapping[str, Any]) -> None:
        self._names = {
            **parameters,
            "AWS::AccountId": place.account,
            "AWS::Region": place.region,
            "AWS::Partition": place.partition,
            "AWS::URLSuffix": f"amazonaws.com{'.cn' if place.partition == 'aws-cn' else ''}",
        }

    def of(self, value: Any) -> Any:
        """Return the value, with `UNKNOWN` in place of what is not known."""
        match value:
            case {"Ref": str(name), **rest} if not rest:
                return self._names.get(name, UNKNOWN)
            case {"Fn::Sub": str(text), **rest} if not rest:
                return self._substituted(text)
            case {"Fn::Join": [str(glue), list(parts)], **rest} if not rest:
                whole = [self.of(part) for part in parts]
                return glue.join(whole) if all(isinstance(each, str) for each in whole) else UNKNOWN
            case {"Fn::Split": [str(glue), text], **rest} if not rest:
                whole = self.of(text)
                return whole.split(glue) if isinstance(whole, str) else UNKNOWN
            case {"Fn::Select": [index, among], **rest} if not rest:
                return self._selected(index, self.of(among))
            case {**members} if any(str(name).startswith("Fn::") for name in members):
                return UNKNOWN
            case dict():
                return {name: self.of(each) for name, each in value.items()}
            case list():
                return [self.of(each) for each in value]
        return value

    def text(self, value: Any) -> str | None:
        """Return a text; `None` if it is not known, or none."""
        found = self.of(value)
        return found if isinstance(found, str) else None

    def texts(self, value: Any) -> list[str]:
        """Return those texts of a list that are known."""
        found = self.of(value)
        return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []

    def document(self, value: Any) -> str:
        """Return a text in which `?` and a logical id stand for what is not known."""
        match value:
            case {"Fn::Join": [str(glue), list(parts)]}:
                return glue.join(self.document(part) for part in parts)
        found = self.of(value)
        if found is not UNKNOWN:
            return str(found)
        match value:
            case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), *_]}:
                return f"?{name}"
        return "?"

    def substituted(self, text: str) -> str | None:
        """Return an asset's name with CloudFormation's variables filled in."""
        return self.text({"Fn::Sub": text})

    def _substituted(self, text: str) -> Any:
        names = [name for name in _NAME.findall(text) if not name.startswith("!")]
        if any(not isinstance(self._names.get(name), str) for name in names):
            return UNKNOWN
        return _NAME.sub(
            lambda found: (
                f"${{{found[1][1:]}}}" if found[1].startswith("!") else self._names[found[1]]
            ),
            text,
        )

    def _selected(self, index: Any, among: Any) -> Any:
        try:
            return among[int(index)] if isinstance(among, list) else UNKNOWN
        except (ValueError, IndexError):
            return UNKNOWN
