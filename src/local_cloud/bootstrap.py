"""The bootstrap stack of an account and region, as far as deploying needs it.

It has the stack name, the logical ids and the outputs of the CDK CLI's own, so that `cdk bootstrap`
and `cdk deploy` go on where our deployer began, and the other way round.
"""

import re
from typing import Any

VERSION = "30"
"""Newer than any that a template asks for, older than the CLI's, which then brings its own."""

_DEFAULT_QUALIFIER = "hnb659fds"
_PARAMETER = re.compile(r"/cdk-bootstrap/([A-Za-z0-9_-]+)/version")


def qualifier_of(parameter: str) -> str:
    """Return the qualifier that is in the name of the bootstrap version's SSM parameter."""
    match = _PARAMETER.fullmatch(parameter)
    return match.group(1) if match else _DEFAULT_QUALIFIER


def stack_name(qualifier: str) -> str:
    """Return the bootstrap stack's name; the CLI's has no qualifier in it."""
    return "CDKToolkit" if qualifier == _DEFAULT_QUALIFIER else f"CDKToolkit-{qualifier}"


def template(qualifier: str, parameter: str) -> dict[str, Any]:
    """Return the template: where file assets lie, where images lie, and the version."""
    here = "${AWS::AccountId}-${AWS::Region}"
    return {
        "Description": "What deploying cloud assemblies needs",
        "Resources": {
            "StagingBucket": {
                "Type": "AWS::S3::Bucket",
                "Properties": {"BucketName": {"Fn::Sub": f"cdk-{qualifier}-assets-{here}"}},
                "UpdateReplacePolicy": "Retain",
                "DeletionPolicy": "Retain",
            },
            "ContainerAssetsRepository": {
                "Type": "AWS::ECR::Repository",
                "Properties": {
                    "RepositoryName": {"Fn::Sub": f"cdk-{qualifier}-container-assets-{here}"}
                },
            },
            "CdkBootstrapVersion": {
                "Type": "AWS::SSM::Parameter",
                "Properties": {"Type": "String", "Name": parameter, "Value": VERSION},
            },
        },
        "Outputs": {
            "BucketName": {"Value": {"Ref": "StagingBucket"}},
            "BucketDomainName": {"Value": {"Fn::GetAtt": ["StagingBucket", "RegionalDomainName"]}},
            "ImageRepositoryName": {"Value": {"Ref": "ContainerAssetsRepository"}},
            "BootstrapVersion": {"Value": VERSION},
        },
    }
