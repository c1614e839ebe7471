"""Images, and what a model's role may do."""

from typing import Any

import pytest

from batch_transform_cli.doctor.models import ImageName, role_findings, trusts_sagemaker

ROLE = "arn:aws:iam::111122223333:role/scoring"


@pytest.mark.parametrize(
    ("uri", "by"),
    [
        pytest.param("churn:2.1.0", {"imageTag": "2.1.0"}, id="a tag"),
        pytest.param("team/churn", {"imageTag": "latest"}, id="no tag"),
        pytest.param("churn@sha256:ab", {"imageDigest": "sha256:ab"}, id="a digest"),
    ],
)
def test_an_image_in_ecr_is_known_by_its_uri(uri: str, by: dict[str, str]) -> None:
    image = ImageName.read(f"111122223333.dkr.ecr.eu-west-1.amazonaws.com/{uri}")

    assert image is not None
    assert (image.account, image.region) == ("111122223333", "eu-west-1")
    assert image.request["imageIds"] == [by]


def test_another_registry_is_not_ecr() -> None:
    assert ImageName.read("registry.example.com:5000/churn:1") is None


@pytest.mark.parametrize(
    ("principal", "trusts"),
    [
        pytest.param({"Service": "sagemaker.amazonaws.com"}, True, id="alone"),
        pytest.param({"Service": ["x.amazonaws.com", "sagemaker.amazonaws.com"]}, True, id="too"),
        pytest.param({"Service": "lambda.amazonaws.com"}, False, id="another"),
        pytest.param({"AWS": ROLE}, False, id="a role"),
    ],
)
def test_a_role_must_trust_sagemaker(principal: dict[str, Any], trusts: bool) -> None:
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    assert trusts_sagemaker({"Statement": [statement]}) is trusts


def _answer(decision: str, **members: Any) -> dict[str, Any]:
    return {
        "EvalActionName": "s3:GetObject",
        "EvalResourceName": "arn:aws:s3:::models/model.tar.gz",
        "EvalDecision": decision,
        **members,
    }


def test_what_a_role_may_not_do_is_a_failure() -> None:
    (found,) = role_findings(ROLE, [_answer("allowed"), _answer("implicitDeny")], "Churn")

    assert found.level == "fail"
    assert f"{ROLE} may not s3:GetObject on arn:aws:s3:::models/model.tar.gz" in found.found
    assert "pipeline.grants.score(role)" in found.fix


def test_a_boundary_that_forbids_is_named() -> None:
    bounded = {"PermissionsBoundaryDecisionDetail": {"AllowedByPermissionsBoundary": False}}
    (found,) = role_findings(ROLE, [_answer("implicitDeny", **bounded)], "Churn")
    assert "its permissions boundary forbids it" in found.found


def test_a_role_that_may_do_all_is_good() -> None:
    (found,) = role_findings(ROLE, [_answer("allowed")], "Churn")
    assert found.level == "ok"
