"""What of the predictions can be looked up by a record's id."""

from collections.abc import Sequence
from dataclasses import dataclass

from batch_transform.quantities import DAY_S, Duration
from batch_transform.settings import TransformSettings
from batch_transform.tokens import is_token
from transform_request import jsonpath

_FORMATS = {"text/csv": "csv", "application/jsonlines": "jsonlines"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionIndex:
    """Makes every prediction of a pipeline findable by its record's id, through an HTTP API.

    A place in an output record is, in CSV, a column number (0 is the first, -1 the last), and in
    JSON Lines a member's name or a path of names and positions, such as `$.customer.id`,
    `$['a b'].id` or `$.scores[0]`.

    :param record_id: the place of the id, which is a text or a whole number.
    :param value: the place of what is kept; of a CSV row also several columns, kept as a list.
        Default: all but the id of a CSV row; a JSON record as it is.
    :param retention: how long a prediction can be looked up. Default: for ever.
    """

    record_id: int | str
    value: int | str | Sequence[int] | None = None
    retention: Duration | None = None

    def __post_init__(self) -> None:
        if isinstance(self.record_id, str) and not self.id_place:
            raise ValueError(
                f"record_id must be a place inside the record, got {self.record_id!r}; "
                "write for example '$.id'"
            )
        if isinstance(self.value, str):
            _steps("value", self.value)
        elif isinstance(self.value, Sequence) and not self.value:
            raise ValueError(
                "value must have at least one column, got none; leave it out to keep all but the id"
            )
        if self.retention is not None and self.retention.to_seconds() < DAY_S:
            raise ValueError(
                f"retention must be at least 1 day, got {self.retention.to_human_string()}; "
                "leave it out to keep predictions for ever"
            )

    @property
    def id_place(self) -> int | list[int | str]:
        """A CSV column, or the steps from a JSON record to its id."""
        if isinstance(self.record_id, str):
            return _steps("record_id", self.record_id)
        return self.record_id

    @property
    def value_place(self) -> int | list[int | str] | None:
        """A CSV column or several, or the steps from a JSON record to what is kept."""
        if isinstance(self.value, str):
            return _steps("value", self.value)
        if isinstance(self.value, Sequence):
            return list(self.value)
        return self.value

    def record_format(self, settings: TransformSettings) -> str:
        """Return how the index reads an output: what the answers are, by their content type.

        :raises ValueError: they have no records, or a place is of the other format.
        """
        content_type = settings.accept or settings.content_type
        record_format = _FORMATS.get(content_type.partition(";")[0].strip())
        if record_format is None:
            raise ValueError(
                f"an indexed pipeline must answer with {' or '.join(_FORMATS)}, "
                f"got {content_type!r}; set accept, or leave index out"
            )
        is_csv = record_format == "csv"
        for name, place in (("record_id", self.record_id), ("value", self.value)):
            if place is not None and isinstance(place, str) == is_csv:
                kind = "a column number" if is_csv else "a member's name or path"
                raise ValueError(
                    f"{name} must be {kind} for {content_type}, got {place!r}; "
                    f"write for example {0 if is_csv else 'id'!r}"
                )
        return record_format


def _steps(name: str, place: str) -> list[int | str]:
    """Return the member names and positions that a path leads along."""
    # A token begins as a path does, and becomes a name.
    if is_token(place) or (place and not place.startswith("$")):
        return [place]
    try:
        steps = jsonpath.parse(place).steps
    except jsonpath.InvalidJsonPath as error:
        raise _no_place(name, place) from error
    found: list[int | str] = []
    for step in steps:
        if isinstance(step, jsonpath.Name):
            found.append(step.name)
        elif isinstance(step, jsonpath.Index):
            found.append(step.index)
        else:
            raise _no_place(name, place)
    return found


def _no_place(name: str, place: str) -> ValueError:
    return ValueError(
        f"{name} must be a member's name, or a path of names and positions, got {place!r}; "
        "write for example 'id', '$.customer.id', '$['a b'].id' or '$.scores[0]'"
    )
