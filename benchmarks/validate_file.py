"""The check of a file of pipelines without CDK: `validate_file.py FILE`."""

import json
import sys

if __name__ == "__main__":
    print(json.dumps({"event": "started"}), flush=True)
    from batch_transform_cli.entry import app

    sys.argv = ["batch-transform", "validate", sys.argv[1]]
    try:
        app()
    finally:
        print(json.dumps({"event": "ended"}), flush=True)
