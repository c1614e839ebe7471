"""Files that CDK uploads at deployment."""

from collections.abc import Sequence
from pathlib import Path

from aws_cdk import AssetStaging, FileAssetLocation, FileAssetPackaging, Stack
from constructs import Construct


def file_asset(
    scope: Construct,
    construct_id: str,
    path: Path,
    *,
    asset_hash: str | None = None,
    exclude: Sequence[str] | None = None,
) -> FileAssetLocation:
    """Return where a file, or a folder as a .zip, will lie once the stack is deployed.

    What aws_s3_assets.Asset does, but that also looks up the bucket's website address in every
    region that there is, which takes a tenth of a second of each synthesis.

    :param asset_hash: what tells one version from another. Default: from the content.
    """
    staged = AssetStaging(
        scope,
        construct_id,
        asset_hash=asset_hash,
        exclude=None if exclude is None else [*exclude],
        source_path=str(path.resolve()),
    )
    stack = Stack.of(scope)
    packaging = FileAssetPackaging.ZIP_DIRECTORY if path.is_dir() else FileAssetPackaging.FILE
    try:
        return stack.synthesizer.add_file_asset(
            display_name=staged.node.path,
            file_name=staged.relative_staged_path(stack),
            packaging=packaging,
            source_hash=staged.asset_hash,
        )
    except RuntimeError as error:
        if "must be bound" not in str(error):
            raise
        # Of a synthesizer that an app gives, jsii hands back the original, and not the copy of it
        # that CDK has bound to the stack.
        return _level_2_asset(scope, f"{construct_id}Asset", staged)


def _level_2_asset(scope: Construct, construct_id: str, staged: AssetStaging) -> FileAssetLocation:
    from aws_cdk import aws_s3_assets as s3_assets

    asset = s3_assets.Asset(
        scope, construct_id, asset_hash=staged.asset_hash, path=staged.absolute_staged_path
    )
    return FileAssetLocation(
        bucket_name=asset.s3_bucket_name,
        http_url=asset.http_url,
        object_key=asset.s3_object_key,
        s3_object_url=asset.s3_object_url,
    )
