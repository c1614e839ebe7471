"""What the construct tells of a pipeline's uploads is what intake does with them."""

import json

import pytest
from aws_cdk import Size

from batch_transform import Uploads
from batch_transform.uploads import uploads_told
from batch_transform_cli.drop.files import KEY_LIMIT_BYTES, Watched
from transform_lambdas.drops import KEY_LIMIT_BYTES as INTAKE_LIMIT_BYTES
from transform_lambdas.drops import Drop
from transform_lambdas.uploads import Uploads as IntakeUploads

ALL = Uploads()
FEW = Uploads(
    prefix="in/",
    suffix=(".csv", ".tsv"),
    min_size=Size.kibibytes(1),
    max_size=Size.kibibytes(2),
    events=False,
)
KEYS = ["in/a.csv", "in/x/a.tsv", "in/a.txt", "in/_SUCCESS", "in/x/_SUCCESS", "input/a", "b.csv"]
SIZES = [0, 1, 1023, 1024, 2048, 2049]


@pytest.mark.parametrize("marker", [None, "_SUCCESS"])
@pytest.mark.parametrize("uploads", [ALL, FEW], ids=["all", "few"])
def test_the_command_refuses_what_intake_would_ignore_or_fail(
    uploads: Uploads, marker: str | None
) -> None:
    told = uploads_told(uploads, marker=marker)
    watched = Watched.read({"input-prefix": uploads.prefix, **json.loads(json.dumps(told))})
    intake = IntakeUploads(
        prefix=uploads.prefix,
        suffixes=uploads.suffixes,
        marker=marker or "",
        min_bytes=uploads.min_bytes,
        max_bytes=uploads.max_bytes,
    )

    assert watched.events == uploads.events
    for key in [*KEYS, uploads.prefix.ljust(918, "a"), uploads.prefix.ljust(919, "a")]:
        is_marker = intake.is_marker(key) and key.startswith(intake.prefix)
        assert (watched.name_problem(key) is None) == (intake.is_named_as_drop(key) or is_marker)
        for size in SIZES:
            drop = Drop(key, "1", size, "e", "v", "2026-03-01T12:00:00.000Z")
            expected = not is_marker and intake.problem(drop) is not None
            if watched.name_problem(key) is None:
                assert (watched.object_problem(key, size) is not None) == expected, (key, size)


def test_both_know_the_longest_key() -> None:
    assert KEY_LIMIT_BYTES == INTAKE_LIMIT_BYTES
