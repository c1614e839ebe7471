"""What a valid CreateTransformJob request is: members, limits, cross-field rules (reference §1).

Standard library only, so that constructs, the command line, the local SageMaker API and the
engine can all ask it before anything costs money:

    validate(request)                       every rule; raises InvalidRequest
    validate(request, partial=True)         required members may still be missing
    validate(request, is_token=...)         values for which it says True are not looked at
    validate(request, foresee=False)        only what CreateTransformJob itself refuses
    validate_model(model)                   what a model must be for batch, in AWS's words

`transform_request.jsonpath` has the JSONPath subset of `DataProcessing`.
"""

from transform_request.instance_types import INSTANCE_TYPES, has_local_storage
from transform_request.rules import InvalidRequest, validate, validate_model

__all__ = ["INSTANCE_TYPES", "InvalidRequest", "has_local_storage", "validate", "validate_model"]
