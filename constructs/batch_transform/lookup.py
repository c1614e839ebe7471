"""Id in, prediction out: an HTTP API with IAM authorization before the lookup function."""

import json

from aws_cdk import Duration, Size
from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_apigatewayv2_authorizers as authorizers
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_logs as logs
from constructs import Construct

from batch_transform.functions import TransformFunctions, vended_log_group
from batch_transform.index import Index

_PATHS = ("/predictions", "/predictions/{id}")  # the first takes any id, as ?id=…
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
        self.api = apigateway.HttpApi(
            self,
            "Api",
            create_default_stage=False,
            default_authorizer=authorizers.HttpIamAuthorizer(),
            description=f"Predictions of the batch transform pipeline {pipeline_id}",
        )
        integration = integrations.HttpLambdaIntegration("Lookup", self.function)
        for path in _PATHS:
            self.api.add_routes(
                path=path, methods=[apigateway.HttpMethod.GET], integration=integration
            )
        access_logs = vended_log_group(
            self, "apigateway", pipeline_id=pipeline_id, retention=log_retention
        )
        apigateway.CfnStage(
            self,
            "Stage",
            access_log_settings=apigateway.CfnStage.AccessLogSettingsProperty(
                destination_arn=access_logs.log_group_arn, format=json.dumps(_ACCESS_LOG)
            ),
            api_id=self.api.api_id,
            auto_deploy=True,
            stage_name="$default",
        )

    @property
    def url(self) -> str:
        """The API's address, without a slash at its end."""
        return self.api.api_endpoint
