"""docs/settings.md, held to the value objects and to botocore's model of CreateTransformJob."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import botocore.session

from batch_transform import (
    DataCapture,
    DataProcessing,
    Experiment,
    ModelClientConfig,
    TransformSettings,
)
from tests.documents import PROJECT

PAGE = (PROJECT / "docs" / "settings.md").read_text()
OURS, _, _ = PAGE.partition("The pipeline itself sets the rest")
# `setting` or two | `Member` | default |
ROWS = re.findall(r"^\| (`[^|]+`) \| `([\w.]+)` \| ([^|]+) \|", OURS, re.M)
PARTS = {
    "model_client": ModelClientConfig,
    "data_processing": DataProcessing,
    "data_capture": DataCapture,
    "experiment": Experiment,
}


def members(shape: Any, path: str = "") -> Iterator[str]:
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            yield from members(member, f"{path}.{name}" if path else name)
    else:
        yield path


def settings() -> Iterator[tuple[str, Any]]:
    """Every setting and its default, of parts with the part's name."""
    for field in dataclasses.fields(TransformSettings):
        if field.name in PARTS:
            for part in dataclasses.fields(PARTS[field.name]):
                yield f"{field.name}.{part.name}", None
        else:
            yield field.name, field.default


def test_the_page_names_every_member_of_the_api_once() -> None:
    service = botocore.session.get_session().get_service_model("sagemaker")
    shape = service.operation_model("CreateTransformJob").input_shape
    named = re.findall(r"^\| [^|]+ \| `([A-Z][\w.]+)` \|", PAGE, re.M)
    assert sorted(named) == sorted(members(shape))


def test_the_page_names_every_setting_once() -> None:
    named = [name for names, _, _ in ROWS for name in re.findall(r"`([\w.]+)`", names)]
    assert sorted(named) == sorted(name for name, _ in settings())


def test_the_page_says_not_sent_where_nothing_is() -> None:
    defaults = dict(settings())
    for names, member, says in ROWS:
        default = defaults[re.findall(r"`([\w.]+)`", names)[0]]
        if default is None or default is dataclasses.MISSING:
            assert "not sent: " in says, member
        else:
            assert says == f"`{default}`", member
