"""What a machine's process is told when it is started."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from org.sandbox.vm.gate import Upstream


@dataclass(frozen=True, slots=True)
class Plan:
    """A machine to run. `folder` is the machine's, `image` an image's; `cache` is the user's cache
    folder of this program, `memory_mib` in MiB, `hostname` what a guest that is new calls itself; its
    ports 7001 and 7002 appear here as `port` and the one after."""

    folder: str
    image: str
    cache: str
    arch: str
    hostname: str
    memory_mib: int
    cpus: int
    upstream: Upstream
    port: int

    def as_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        fields = json.loads(text)
        return cls(**fields | {"upstream": Upstream(**fields["upstream"])})
