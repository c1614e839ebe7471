"""Ids in, predictions out: an HTTP API with IAM authorization before the lookup function."""

import json

from aws_cdk import CfnResource
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from batch_transform.deployed import place_of
from batch_transform.functions import TransformFunctions, vended_log_group
from batch_transform.index import Index
from batch_transform.statements import Statement, allow

# The first takes any id, as ?id=…, the last takes many.
_ROUTES = ("GET /predictions", "GET /predictions/{id}", "POST /predictions")
_STAGE = "$default"
# Path and query hold a record's id, so the log has the route instead.
_ACCESS_LOG = {
    "request_id": "$context.requestId",
    "caller": "$context.identity.userArn",
    "route": "$context.routeKey",
    "status": "$context.status",
    "latency_ms": "$context.responseLatency",
    "error": "$context.integrationErrorMessage",
}


class Lookup(Construct):
    """The API of a pipeline's predictions.

    `GET /predictions/{id}` or `?id=…` answers with the newest prediction of a record or with its
    history, `POST /predictions` with the newest ones of up to 100 records.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        pipeline_id: str,
        index: Index,
        log_retention: logs.RetentionDays,
        encryption_key: kms.IKey | None,
        functions: TransformFunctions,
    ) -> None:
        super().__init__(scope, construct_id)
        self.function = functions.define(
            self,
            "Function",
            module="lookup",
            description="Answers with predictions",
            environment={"PREDICTIONS_TABLE": index.table_name},
            statements=index.allow("Query"),
            memory_mb=512,
            timeout_s=28,  # the API waits for 30, and says nothing of use then
        )
        self.api = CfnResource(
            self,
            "Api",
            type="AWS::ApiGatewayV2::Api",
            properties={
                "Description": f"Predictions of the batch transform pipeline {pipeline_id}",
                "Name": f"batch-transform-{pipeline_id}",
                "ProtocolType": "HTTP",
            },
        )
        self._api_id = self.api.ref
        self._routes = self._serve()
        self._has_iam = True
        access_logs_arn = vended_log_group(
            self,
            "apigateway",
            pipeline_id=pipeline_id,
            retention=log_retention,
            encryption_key=encryption_key,
        )
        CfnResource(
            self,
            "Stage",
            type="AWS::ApiGatewayV2::Stage",
            properties={
                "AccessLogSettings": {
                    "DestinationArn": access_logs_arn,
                    "Format": json.dumps(_ACCESS_LOG),
                },
                "ApiId": self._api_id,
                "AutoDeploy": True,
                "StageName": _STAGE,
            },
        )

    def _serve(self) -> list[CfnResource]:
        """Let the API, and nobody else, hand requests to the function; return its routes."""
        integration = CfnResource(
            self,
            "Integration",
            type="AWS::ApiGatewayV2::Integration",
            properties={
                "ApiId": self._api_id,
                "IntegrationType": "AWS_PROXY",
                "IntegrationUri": self.function.function_arn,
                "PayloadFormatVersion": "2.0",
            },
        )
        target = f"integrations/{integration.ref}"
        routes = [
            CfnResource(
                self,
                f"Route{number}",
                type="AWS::ApiGatewayV2::Route",
                properties={
                    "ApiId": self._api_id,
                    "AuthorizationType": "AWS_IAM",
                    "RouteKey": route,
                    "Target": target,
                },
            )
            for number, route in enumerate(_ROUTES)
        ]
        CfnResource(
            self,
            "Permission",
            type="AWS::Lambda::Permission",
            properties={
                "Action": "lambda:InvokeFunction",
                "FunctionName": self.function.function_arn,
                "Principal": "apigateway.amazonaws.com",
                # Not SourceAccount too: API Gateway is not known to tell it, and the ARN has it.
                "SourceArn": place_of(self).arn("execute-api", f"{self._api_id}/*/*"),
            },
        )
        return routes

    @property
    def url(self) -> str:
        """The API's address, without a slash at its end."""
        return self.api.get_att("ApiEndpoint").to_string()

    def authorize_by(self, authorizer_id: str, *, authorization_type: str) -> None:
        """Let an authorizer of yours decide who may call, instead of IAM.

        :param authorizer_id: of an authorizer of `self.api`, such as `CfnAuthorizer(...).ref`.
        :param authorization_type: `JWT`, or `CUSTOM` for a Lambda authorizer.
        """
        self._has_iam = False
        for route in self._routes:
            route.add_property_override("AuthorizationType", authorization_type)
            route.add_property_override("AuthorizerId", authorizer_id)

    def use(self) -> Statement:
        """Return the statement that allows to call the API.

        :raises ValueError: it is not IAM that decides.
        """
        if not self._has_iam:
            raise ValueError(
                "grants.lookup needs IAM authorization, got an authorizer of yours; "
                "let that decide who may call"
            )
        return allow(
            actions=["execute-api:Invoke"],
            resources=[
                place_of(self).arn("execute-api", f"{self._api_id}/{_STAGE}/{path}")
                for path in (route.replace(" ", "").replace("{id}", "*") for route in _ROUTES)
            ],
        )
