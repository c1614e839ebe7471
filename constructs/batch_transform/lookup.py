"""Id in, prediction out: an HTTP API with IAM authorization before the lookup function."""

import json

from aws_cdk import CfnResource, Duration, Size, Stack
from aws_cdk import aws_logs as logs
from constructs import Construct

from batch_transform.functions import TransformFunctions, vended_log_group
from batch_transform.index import Index

_ROUTES = ("GET /predictions", "GET /predictions/{id}")  # the first takes any id, as ?id=…
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
    """`GET /predictions/{id}` or `?id=…`: the newest prediction of a record, or its history."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        pipeline_id: str,
        index: Index,
        log_retention: logs.RetentionDays,
        functions: TransformFunctions,
    ) -> None:
        super().__init__(scope, construct_id)
        self.function = functions.define(
            self,
            "Function",
            module="lookup",
            description="Answers with predictions",
            environment={"PREDICTIONS_TABLE": index.table.table_name},
            statements=index.allow("Query"),
            memory=Size.mebibytes(256),
            timeout=Duration.seconds(10),
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
        self._serve()
        access_logs = vended_log_group(
            self, "apigateway", pipeline_id=pipeline_id, retention=log_retention
        )
        CfnResource(
            self,
            "Stage",
            type="AWS::ApiGatewayV2::Stage",
            properties={
                "AccessLogSettings": {
                    "DestinationArn": access_logs.log_group_arn,
                    "Format": json.dumps(_ACCESS_LOG),
                },
                "ApiId": self.api.ref,
                "AutoDeploy": True,
                "StageName": "$default",
            },
        )

    def _serve(self) -> None:
        """Let the API, and nobody else, hand requests to the function."""
        integration = CfnResource(
            self,
            "Integration",
            type="AWS::ApiGatewayV2::Integration",
            properties={
                "ApiId": self.api.ref,
                "IntegrationType": "AWS_PROXY",
                "IntegrationUri": self.function.function_arn,
                "PayloadFormatVersion": "2.0",
            },
        )
        for number, route in enumerate(_ROUTES):
            CfnResource(
                self,
                f"Route{number}",
                type="AWS::ApiGatewayV2::Route",
                properties={
                    "ApiId": self.api.ref,
                    "AuthorizationType": "AWS_IAM",
                    "RouteKey": route,
                    "Target": f"integrations/{integration.ref}",
                },
            )
        CfnResource(
            self,
            "Permission",
            type="AWS::Lambda::Permission",
            properties={
                "Action": "lambda:InvokeFunction",
                "FunctionName": self.function.function_arn,
                "Principal": "apigateway.amazonaws.com",
                "SourceAccount": Stack.of(self).account,
                "SourceArn": Stack.of(self).format_arn(
                    resource=self.api.ref, resource_name="*/*", service="execute-api"
                ),
            },
        )

    @property
    def url(self) -> str:
        """The API's address, without a slash at its end."""
        return self.api.get_att("ApiEndpoint").to_string()
