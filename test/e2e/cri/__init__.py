# SPDX-License-Identifier: Apache-2.0
"""A CRI client for tests.

    from cri import Client, pb, pod_config, container_config, refused

    with Client("/run/interlink-cri.sock") as cri:
        cri.wait_ready()
        pod = pod_config("web")
        sandbox = cri.runtime.RunPodSandbox(pb.RunPodSandboxRequest(config=pod)).pod_sandbox_id
        with refused("NOT_FOUND", "no such container"):
            cri.runtime.ContainerStatus(pb.ContainerStatusRequest(container_id="no"))

Importing it generates the Python modules of proto/*.proto into $INTERLINK_CRI_STUBS (build/e2e/stubs unless set) when they are
missing or old, and puts that folder on sys.path: after it, `import agent_pb2, agent_pb2_grpc` works too.
"""
import os
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
STUBS = Path(os.environ.get("INTERLINK_CRI_STUBS") or _HERE.parents[2] / "build" / "e2e" / "stubs")

subprocess.run([_HERE.parent / "genproto.sh", STUBS], check=True)
if str(STUBS) not in sys.path:
    sys.path.insert(0, str(STUBS))

import cri_pb2 as pb  # noqa: E402
import cri_pb2_grpc as pb_grpc  # noqa: E402
import health_pb2 as health_pb  # noqa: E402
import health_pb2_grpc as health_grpc  # noqa: E402
import reflection_pb2 as reflection_pb  # noqa: E402
import reflection_pb2_grpc as reflection_grpc  # noqa: E402

from .client import Client, container_config, pod_config, refused  # noqa: E402

__all__ = ["Client", "STUBS", "container_config", "health_grpc", "health_pb", "pb", "pb_grpc", "pod_config",
           "reflection_grpc", "reflection_pb", "refused"]
