"""What the simulation assumes; inputs.yaml says what each is."""

from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

COMMITTED = Path(__file__).with_name("inputs.yaml")

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Calls = dict[str, float]
"""How often each kind of call is made."""


class _Inputs(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Windows(_Inputs):
    """A job for each window that is not empty."""

    window_s: Positive
    instances: Count


class PipelineSettings(_Inputs):
    """What a pipeline of this project is given."""

    max_wait_s: Annotated[float, Field(ge=0)]
    max_objects: Annotated[int, Field(ge=1, le=10_000)]
    max_concurrent_runs: Count


class CallsOf(_Inputs):
    """What a way of making jobs calls, for each upload, job and day."""

    upload: Calls = {}
    job: Calls = {}
    day: Calls = {}


class Inputs(_Inputs):
    """All assumptions."""

    uploads_per_day: Annotated[list[Count], Field(min_length=1)]
    seed: int
    bursts_per_day: Count
    burst_s: Positive
    share_in_bursts: Annotated[float, Field(ge=0, le=1)]
    object_bytes: Count
    records_per_upload: Count
    record_s: Annotated[float, Field(ge=0)]
    job_start_s: Annotated[float, Field(ge=0)]
    billed_start_s: Annotated[float, Field(ge=0)]
    instance_quota: Count
    windows: Windows
    pipelines: dict[str, PipelineSettings]
    max_bytes: Count
    intake_s: Annotated[float, Field(ge=0)]
    claim_s: Annotated[float, Field(ge=0)]
    settle_s: Annotated[float, Field(ge=0)]
    calls: dict[str, CallsOf]
    prices: Calls

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file like inputs.yaml.

        :raises ValueError: it is not like it.
        """
        return cls.model_validate(yaml.safe_load(path.read_text()))

    @property
    def upload_s(self) -> float:
        """How long one instance works on an upload."""
        return self.records_per_upload * self.record_s

    @model_validator(mode="after")
    def _check(self) -> Self:
        wanted = {
            "windows.instances": self.windows.instances,
            **{f"pipelines.{n}": p.max_concurrent_runs for n, p in self.pipelines.items()},
        }
        for name, instances in wanted.items():
            if instances > self.instance_quota:
                raise ValueError(
                    f"{name} must ask for no more instances than instance_quota, "
                    f"{self.instance_quota}, got {instances}; raise the quota or ask for fewer"
                )
        made = [calls for of in self.calls.values() for calls in (of.upload, of.job, of.day)]
        if unpriced := {kind for calls in made for kind in calls} - {*self.prices}:
            raise ValueError(
                f"prices must have every kind of call, got none of {sorted(unpriced)}; add them"
            )
        return self
