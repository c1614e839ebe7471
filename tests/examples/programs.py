"""The examples that are an app of their own: what tests synthesize and run."""

import runpy
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "examples"
APPS = sorted(path.parent for path in FOLDER.glob("*/app.py"))


def synthesize(example: Path) -> Path:
    """Run the example's app in this process, where aws_cdk is imported already."""
    names = runpy.run_path(str(example / "app.py"), run_name="__main__")
    return Path(names["app"].synth().directory)
