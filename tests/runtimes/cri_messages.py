# SPDX-License-Identifier: Apache-2.0
"""The part of the Kubernetes Container Runtime Interface (runtime.v1) that the tests use.

Field numbers are those of k8s.io/cri-api, pkg/apis/runtime/v1/api.proto.  Other fields are ignored in answers.
"""

from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

PACKAGE = "runtime.v1"
SERVICE = f"/{PACKAGE}.RuntimeService"

# Message: fields as `type name number`; `map` is map<string, string>, and a leading "*" means repeated.
MESSAGES = {
    "NamespaceOption": "enum network 1, enum pid 2, enum ipc 3",
    "LinuxSandboxSecurityContext": "NamespaceOption namespace_options 1",
    "LinuxPodSandboxConfig": "string cgroup_parent 1, LinuxSandboxSecurityContext security_context 2",
    "PodSandboxMetadata": "string name 1, string uid 2, string namespace 3, uint32 attempt 4",
    "PodSandboxConfig": "PodSandboxMetadata metadata 1, string hostname 2, string log_directory 3, map labels 6, "
    "map annotations 7, LinuxPodSandboxConfig linux 8",
    "RunPodSandboxRequest": "PodSandboxConfig config 1",
    "RunPodSandboxResponse": "string pod_sandbox_id 1",
    "StopPodSandboxRequest": "string pod_sandbox_id 1",
    "StopPodSandboxResponse": "",
    "RemovePodSandboxRequest": "string pod_sandbox_id 1",
    "RemovePodSandboxResponse": "",
    "PodSandboxStatusRequest": "string pod_sandbox_id 1",
    "PodSandboxNetworkStatus": "string ip 1",
    "PodSandboxStatus": "string id 1, PodSandboxMetadata metadata 2, PodSandboxNetworkStatus network 5, map labels 7",
    "PodSandboxStatusResponse": "PodSandboxStatus status 1",
    "ImageSpec": "string image 1",
    "LinuxContainerResources": "int64 memory_limit_in_bytes 4, int64 oom_score_adj 5, map unified 9, "
    "int64 memory_swap_limit_in_bytes 10",
    "LinuxContainerSecurityContext": "NamespaceOption namespace_options 3",
    "LinuxContainerConfig": "LinuxContainerResources resources 1, LinuxContainerSecurityContext security_context 2",
    "ContainerMetadata": "string name 1, uint32 attempt 2",
    "ContainerConfig": "ContainerMetadata metadata 1, ImageSpec image 2, *string command 3, map labels 9, "
    "map annotations 10, string log_path 11, LinuxContainerConfig linux 15",
    "CreateContainerRequest": "string pod_sandbox_id 1, ContainerConfig config 2, PodSandboxConfig sandbox_config 3",
    "CreateContainerResponse": "string container_id 1",
    "StartContainerRequest": "string container_id 1",
    "StartContainerResponse": "",
    "ContainerStatusRequest": "string container_id 1, bool verbose 2",
    "ContainerStatus": "string id 1, ContainerMetadata metadata 2, enum state 3, int32 exit_code 7, ImageSpec image 8, "
    "string reason 10, map labels 12, string log_path 15",
    "ContainerStatusResponse": "ContainerStatus status 1, map info 2",
    "ExecSyncRequest": "string container_id 1, *string cmd 2, int64 timeout 3",
    "ExecSyncResponse": "int32 exit_code 3",
}

_Field = descriptor_pb2.FieldDescriptorProto
# An enumeration is encoded as an int32.
_SCALARS = {
    "string": _Field.TYPE_STRING,
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "enum": _Field.TYPE_INT32,
}


def _add_field(message: descriptor_pb2.DescriptorProto, kind: str, name: str, number: str) -> None:
    repeated = kind.startswith("*") or kind == "map"
    kind = kind.lstrip("*")
    field = message.field.add(name=name, number=int(number))
    field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
        return
    field.type = _Field.TYPE_MESSAGE
    if kind == "map":
        # A map is a repeated message; json_format requires this name.
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        _add_field(entry, "string", "key", "1")
        _add_field(entry, "string", "value", "2")
        kind = f"{message.name}.{entry.name}"
    field.type_name = f".{PACKAGE}.{kind}"


def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="cri.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in filter(None, fields.split(", ")):
            _add_field(message, *field.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


class Client:
    """Calls methods of the RuntimeService with dictionaries."""

    def __init__(self, socket: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._messages = _pool()
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=[("grpc.default_authority", "localhost")])

    def call(self, method: str, **request: object) -> Any:
        """The answer, without fields that have their default value."""
        message = json_format.ParseDict(request, self._class(f"{method}Request")())
        send = self._channel.unary_unary(
            f"{SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self._class(f"{method}Response").FromString,
        )
        answer = send(message, timeout=self._timeout_s)
        return json_format.MessageToDict(answer, preserving_proto_field_name=True)

    def _class(self, name: str) -> Any:
        return message_factory.GetMessageClass(self._messages.FindMessageTypeByName(f"{PACKAGE}.{name}"))

    def close(self) -> None:
        self._channel.close()
