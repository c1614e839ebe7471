"""Answers of AWS for what moto does not have, held to the shapes of botocore's own models."""

import functools
from collections.abc import Mapping
from typing import Any

import boto3
from botocore import xform_name
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

from batch_transform_cli.doctor.findings import Place

Answer = Mapping[str, Any] | str
"""A document, or the code of an error."""


class Answers:
    """Makes clients that ask moto, but for the operations that are answered here.

    :ivar asked: every operation that was called, answered here or not.
    """

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.asked: set[str] = set()
        self._answers = dict(answers)
        self._clients: dict[tuple[str, Place], Any] = {}

    def __call__(self, service: str, place: Place) -> Any:
        """Make a client."""
        if (service, place) not in self._clients:
            client = boto3.client(service, region_name=place.region)
            client.meta.events.register(
                f"before-call.{service}", functools.partial(self._hear, service)
            )
            self._clients[service, place] = client
        return self._clients[service, place]

    def _hear(self, service: str, *, model: Any, params: Any, **event: Any) -> Any:
        name = f"{service}.{xform_name(model.name)}"
        self.asked.add(name)
        answer = self._answers.get(name)
        if answer is None:
            return None
        if isinstance(answer, str):
            raise ClientError({"Error": {"Code": answer, "Message": answer}}, model.name)
        report = ParamValidator().validate(answer, model.output_shape)
        assert not report.has_errors(), report.generate_report()
        return AWSResponse("", 200, {}, None), answer
