"""Runs a program and tells what it used, as one JSON line after the program's own output.

A process of its own, and a small one: the kernel counts the memory of the process that starts a
program towards that program's peak.
"""

import json
import os
import sys

child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
used = {
    "event": "used",
    "exit_code": os.waitstatus_to_exitcode(status),
    "cpu_s": usage.ru_utime + usage.ru_stime,
    "peak_bytes": usage.ru_maxrss * 1024,
}
print(json.dumps(used), flush=True)
