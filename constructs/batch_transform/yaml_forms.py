"""What a file of pipelines may say, derived from what a program may say to `BatchTransform`.

Every member of the file is a parameter of `BatchTransform` or of one of its value objects, with its
name, its type, its default and its description. What a program passes as a CDK object the file
names: a key by its ARN, a bucket by its name. So a new parameter is in the file without a line
here, unless its type is a new one of CDK's.
"""

import ast
import importlib
import inspect
import re
import sys
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from enum import Enum
from functools import cache, partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, Field, ValidationInfo, create_model

from batch_transform.containers import ECR_URI
from batch_transform.log_retention import LOG_RETENTION
from batch_transform.plan import Plan, plan_pipeline
from batch_transform.quantities import Bytes, Duration, Seconds, Size
from batch_transform.yaml_existing import (
    CDK,
    CDK_FORMS,
    LIST,
    MEMBERS,
    RETENTION_DAYS,
    SUBNETS,
    Entry,
    Form,
    Reading,
    either,
    existing_forms,
    list_of,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipeline:
    """A pipeline of the file.

    :param arguments: of `BatchTransform`.
    :param accounts: in which it is; `None` is all.
    :param tags: of its stack.
    :param acknowledge: ids of warnings, and why they are none here.
    """

    arguments: Mapping[str, Any]
    plan: Plan
    accounts: Sequence[str] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    acknowledge: Mapping[str, str] = field(default_factory=dict)


FORMS: Mapping[type, list[Form]] = {
    str: [Form(read=str, kind="text")],
    int: [Form(read=int, kind="a whole number")],
    bool: [Form(read=bool, kind="true or false")],
    float: [Form(read=float, kind="a number"), Form(read=float, kind="a whole number")],
    **CDK_FORMS,
}


def _texts_to(value: Any) -> Any:
    return dict[str, value]


def _one_of(*values: Any) -> Any:
    return Literal[values]


_DURATIONS = {"s": 1, "minutes": 60, "hours": 3600, "days": 86_400}
_SIZES = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_UNITS = {Duration: (_DURATIONS, Seconds), Size: (_SIZES, Bytes)}
_AMOUNT = Annotated[int, Field(ge=0)]


def _forms(annotation: Any) -> list[Form]:
    """Return what a parameter of this type may be in the file."""
    if annotation in FORMS:
        return FORMS[annotation]
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not NoneType]
        if Path in parts:
            parts = [part for part in parts if part is not str]
        return [form for part in parts for form in _forms(part)]
    if annotation is Path:
        return [Form(read=Annotated[str, AfterValidator(_path_or_uri)], kind="text")]
    if get_origin(annotation) is Sequence:
        (item,) = get_args(annotation)
        return [Form(read=list_of(either(_forms(item))), kind=LIST)]
    if get_origin(annotation) is Mapping:
        _, value = get_args(annotation)
        return [Form(read=_texts_to(either(_forms(value))), kind=MEMBERS)]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [Form(read=Annotated[annotation, Field(strict=False)], kind="text")]
    if isinstance(annotation, type):
        return _class_forms(annotation)
    raise _no_form(annotation)


def _no_form(annotation: Any) -> TypeError:
    return TypeError(
        f"a parameter must be of a type that has a form in YAML, got {annotation!r}; add one to "
        "yaml_existing, or use another type"
    )


def _path_or_uri(text: str, info: ValidationInfo[Reading]) -> str | Path:
    """Return a path below the file's folder, or the text when it names what is elsewhere."""
    path: Path = info.context.folder / text
    host = text.partition("/")[0]
    elsewhere = "://" in text or ECR_URI.fullmatch(text) or re.search(r"\w[.:]", host)
    return text if elsewhere and not path.exists() else path


# Members: a parameter, or one for each unit of it.


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parameter:
    name: str
    annotation: Any
    required: bool
    description: str
    default: object = None

    @property
    def is_left_out_as_none(self) -> bool:
        """Whether a program has to pass `None` for what the file leaves out."""
        return self.required and NoneType in get_args(self.annotation)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Member:
    parameter: str
    read: Any
    required: bool
    description: str
    default: object = None
    convert: Callable[[Any], Any] = lambda value: value  # a default


def _members(parameter: _Parameter) -> Iterator[tuple[str, _Member]]:
    """Yield the members of a parameter by their names; none if no file can say it."""
    one = {part for part in get_args(parameter.annotation) if part is not NoneType}
    kind = one.pop() if len(one) == 1 else parameter.annotation
    make = partial(_Member, parameter=parameter.name)
    if kind in _UNITS:
        units, quantity = _UNITS[kind]
        in_name = units is _SIZES and "bytes" in parameter.name.split("_")
        for unit, factor in {"bytes": 1}.items() if in_name else units.items():
            name = parameter.name if in_name else f"{parameter.name}_{unit}"
            yield (
                name,
                make(
                    read=_AMOUNT,
                    required=False,
                    description=parameter.description,
                    convert=partial(_quantity, quantity, factor),
                ),
            )
        return
    if kind is RETENTION_DAYS:
        (days,) = existing_forms("log_retention", Form(read=_one_of(*LOG_RETENTION), kind="whole"))
        yield (
            f"{parameter.name}_days",
            make(read=days.read, required=False, description=parameter.description),
        )
        return
    forms = _forms(parameter.annotation)
    if forms:
        # Which subnets a VPC has, no file can say.
        required = (parameter.required and not parameter.is_left_out_as_none) or kind is SUBNETS
        description = parameter.description.removeprefix("Default: the private ones.").strip()
        yield (
            parameter.name,
            make(
                read=either(forms),
                required=required,
                description=description,
                default=parameter.default,
            ),
        )


def _quantity(make: Callable[[int], Any], factor: int, count: int) -> Any:
    return make(count * factor)


def _entry(
    name: str,
    make: Callable[..., Any],
    parameters: Iterable[_Parameter],
    description: str,
) -> Form:
    """Return what reads the arguments of `make`, and calls it."""
    parameters = [*parameters]
    members = {name: member for each in parameters for name, member in _members(each)}
    none = {each.name: None for each in parameters if each.is_left_out_as_none}
    given: dict[str, Any] = {
        # The names of pydantic's own attributes may be members, too.
        f"at_{name}": (
            member.read,
            Field(
                ... if member.required else member.default,
                alias=name,
                description=member.description or None,
            ),
        )
        for name, member in members.items()
    }
    model = create_model(name, __base__=Entry, __doc__=description, **given)

    def call(entry: Entry) -> Any:
        arguments: dict[str, Any] = dict(none)
        said: dict[str, str] = {}
        for attribute in type(entry).model_fields:
            if attribute not in entry.model_fields_set:
                continue
            name = attribute.removeprefix("at_")
            member = members[name]
            if member.parameter in said:
                raise ValueError(
                    f"{member.parameter} must be given once, got {said[member.parameter]} and "
                    f"{name}; leave one of them out"
                )
            said[member.parameter] = name
            arguments[member.parameter] = member.convert(getattr(entry, attribute))
        return make(**arguments)

    return Form(
        read=Annotated[model, AfterValidator(call)], kind=MEMBERS, members=frozenset(members)
    )


@cache
def _class_forms(cls: type) -> list[Form]:
    """Return the ways of making an object: its constructor, or methods that are in place of it.

    Methods that vary the constructor's defaults, such as `TransformSettings.csv`, are members with
    their names, below which stand their parameters and those of the constructor.
    """
    methods = {
        name: getattr(cls, name)
        for name, value in vars(cls).items()
        if isinstance(value, classmethod | staticmethod) and not name.startswith("_")
    }
    if methods and (not is_dataclass(cls) or any(name.startswith("from_") for name in methods)):
        entries = [
            _entry(_title(cls, name), method, _parameters(method), _summary(method))
            for name, method in methods.items()
        ]
        return [entry for entry in entries if entry.members]
    constructor = _entry(cls.__name__, cls, _parameters(cls), _summary(cls))
    return [constructor, *(_preset(cls, name, method) for name, method in methods.items())]


def _preset(cls: Any, name: str, method: Callable[..., Any]) -> Form:
    own = {each.name: each for each in _parameters(method)}
    all_parameters = {each.name: each for each in _parameters(cls)} | own

    def make(**arguments: Any) -> Any:
        made = method(**{name: value for name, value in arguments.items() if name in own})
        return replace(
            made, **{name: value for name, value in arguments.items() if name not in own}
        )

    inner = _entry(_title(cls, name), make, all_parameters.values(), _summary(method))
    outer = create_model(
        f"{_title(cls, name)}Preset",
        __base__=Entry,
        __doc__=_summary(method),
        preset=(inner.read, Field(alias=name)),
    )
    return Form(
        read=Annotated[outer, AfterValidator(lambda entry: entry.preset)],
        kind=MEMBERS,
        members=frozenset({name}),
    )


def _title(cls: type, method: str) -> str:
    return cls.__name__ + "".join(word.capitalize() for word in method.split("_"))


def _parameters(make: Callable[..., Any]) -> list[_Parameter]:
    names = ChainMap({**CDK}, vars(sys.modules[make.__module__]))
    described = _described(make)
    if isinstance(make, type) or inspect.ismethod(make):  # what a factory sets, the class describes
        described = _described(getattr(make, "__self__", make)) | described
    return [
        _Parameter(
            name=name,
            annotation=_evaluated(parameter.annotation, names),
            required=parameter.default is parameter.empty,
            description=described.get(name, ""),
            default=_shown(parameter.default),
        )
        for name, parameter in inspect.signature(make).parameters.items()
    ]


def _shown(default: object) -> object:
    """Return a default that editors can show; what is not given stays out of the arguments."""
    return default if isinstance(default, bool | int | float | str) else None


def _evaluated(annotation: Any, names: Mapping[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, {}, names)  # of our own modules
    except (AttributeError, NameError):
        raise _no_form(annotation) from None


def _summary(documented: Any) -> str:
    return _plain((inspect.getdoc(documented) or "").split("\n\n")[0])


def _described(documented: Any) -> dict[str, str]:
    return _of_parameters(inspect.getdoc(documented) or "")


def _of_parameters(docstring: str) -> dict[str, str]:
    found = re.findall(r"^:param (\w+): (.*(?:\n .*)*)", docstring, re.M)
    return {name: _sentence(text) for name, text in found}


def _sentence(text: str) -> str:
    text = _plain(text)
    return text[:1].upper() + text[1:]


def _plain(text: str) -> str:
    return " ".join(text.split())


# A pipeline: what BatchTransform takes. Its module cannot be imported without CDK, so it is parsed.


class _Imported(dict[str, Any]):
    """The names that a module imports from ours, imported when they are asked for."""

    def __init__(self, tree: ast.Module) -> None:
        super().__init__(Sequence=Sequence, Mapping=Mapping)
        self._modules = {
            alias.name: statement.module
            for statement in tree.body
            if isinstance(statement, ast.ImportFrom) and statement.module
            for alias in statement.names
        }

    def __missing__(self, name: str) -> Any:
        if not self._modules.get(name, "").startswith("batch_transform."):
            raise KeyError(name)
        return getattr(importlib.import_module(self._modules[name]), name)


_DEPLOYMENT = (
    _Parameter(
        name="accounts",
        annotation=Sequence[str],
        required=False,
        description="The names of the accounts in which the pipeline is. Default: all.",
    ),
    _Parameter(
        name="tags",
        annotation=Mapping[str, str],
        required=False,
        description="Of the pipeline's stack, and so of all that is in it.",
    ),
    _Parameter(
        name="acknowledge",
        annotation=Mapping[str, str],
        required=False,
        description="Ids of warnings of the synthesis, each with the reason why it is none here.",
    ),
)


@cache
def pipeline_form() -> Any:
    """Return the type that reads a pipeline, given a `Reading`, and makes a `Pipeline` of it."""
    tree = ast.parse(Path(__file__).with_name("pipeline.py").read_text("utf-8"))
    (cls,) = (
        each
        for each in tree.body
        if isinstance(each, ast.ClassDef) and each.name == "BatchTransform"
    )
    (init,) = (
        each for each in cls.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"
    )
    names = ChainMap({**CDK}, _Imported(tree))
    docstring = ast.get_docstring(cls) or ""
    described = _of_parameters(docstring)
    defaults = dict(zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True))
    parameters = [
        _Parameter(
            name=each.arg,
            annotation=_evaluated(ast.unparse(each.annotation), names) if each.annotation else Any,
            required=default is None,
            description=described.get(each.arg, ""),
            default=_shown(default.value) if isinstance(default, ast.Constant) else None,
        )
        for each, default in defaults.items()
    ]
    needed = inspect.signature(plan_pipeline).parameters
    own = {
        each.arg: eval(ast.unparse(default), {}, names)
        for each, default in defaults.items()
        if default is not None and each.arg in needed
    }

    def make(**given: Any) -> Pipeline:
        deployment = {each.name: given.pop(each.name) for each in _DEPLOYMENT if each.name in given}
        planned = own | {name: value for name, value in given.items() if name in needed}
        return Pipeline(arguments=given, plan=plan_pipeline(**planned), **deployment)

    return _entry("Pipeline", make, [*parameters, *_DEPLOYMENT], docstring.split("\n\n")[0]).read
