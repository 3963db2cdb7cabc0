"""What the API is, for programs: `GET /openapi.json`."""

from __future__ import annotations

from typing import Any

DESCRIPTION: dict[str, Any] = {}
