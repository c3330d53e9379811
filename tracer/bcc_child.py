# SPDX-License-Identifier: Apache-2.0
"""The child of the ``bcc`` engine: compiles, attaches, hands the descriptors over, and is gone.

A script of its own, run by the system's Python: it imports bcc and the standard library, nothing of oomtrace.
In: JSON on stdin.  Out: JSON and descriptors on the socket whose number is its argument.
"""

import json
import os
import socket
import sys
from typing import Any


def flatten(descriptors: dict[Any, Any]) -> list[int]:
    """bcc keeps its descriptors by name, in newer versions by name and program."""
    found = []
    for value in descriptors.values():
        found += flatten(value) if isinstance(value, dict) else [value]
    return found


def main() -> None:
    request = json.load(sys.stdin)
    os.environ["BCC_KERNEL_SOURCE"] = request["kernel_source"]
    from bcc import BPF  # it reads the environment when it is imported

    reply: dict[str, Any] = {"attached": [], "error": None, "errno": 0}
    programs = BPF(src_file=request["source"].encode(), cflags=request["flags"])
    for program, kind, target, required in request["hooks"]:
        try:
            if kind == "raw_tp":
                programs.attach_raw_tracepoint(target.encode(), program.encode())
            elif kind == "kretprobe":
                programs.attach_kretprobe(event=target.encode(), fn_name=program.encode())
            else:
                programs.attach_kprobe(event=target.encode(), fn_name=program.encode())
        except Exception as error:  # bcc raises plain Exception
            if required:
                reply["error"] = f"{kind} {target}: {error}"
                reply["errno"] = getattr(error, "errno", None) or 22
                break
        else:
            reply["attached"].append((program, kind, target))
    descriptors = flatten(programs.kprobe_fds) + flatten(programs.raw_tracepoint_fds)
    with socket.socket(fileno=int(sys.argv[1])) as parent:
        socket.send_fds(parent, [json.dumps(reply).encode()], descriptors)
    # bcc's own clean-up at exit would detach what the parent has just received.
    os._exit(0)


if __name__ == "__main__":
    main()
