"""CDK constructs for event-driven SageMaker Batch Transform."""
