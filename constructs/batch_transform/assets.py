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
    return stack.synthesizer.add_file_asset(
        display_name=staged.node.path,
        file_name=staged.relative_staged_path(stack),
        packaging=packaging,
        source_hash=staged.asset_hash,
    )
