"""Commands of the AWS CLI, held against botocore's models, which it is made of."""

import botocore.session
from botocore import xform_name

# Those that are the CLI's own and in no model, and what it adds to each that is.
_OF_S3 = ("cp", "ls", "mb", "mv", "rm", "sync")
_OF_THE_CLI = {"cli-binary-format", "output", "query", "region"}
_RENAMED = {("sns", "subscribe"): {"notification-endpoint"}}


def check_aws(arguments: list[str]) -> None:
    """Fail unless there is such an operation, with such members."""
    service, operation, *options = arguments
    if service == "s3":
        assert operation in _OF_S3
        return
    model = botocore.session.get_session().get_service_model(
        "s3" if service == "s3api" else service
    )
    operations = {xform_name(name, "-"): name for name in model.operation_names}
    shape = model.operation_model(operations[operation]).input_shape
    members = {xform_name(name, "-") for name in shape.members} if shape else set()
    given = {option[2:] for option in options if option.startswith("--")}
    known = members | _OF_THE_CLI | _RENAMED.get((service, operation), set())
    assert given <= known, given - known
