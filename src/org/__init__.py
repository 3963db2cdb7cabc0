"""org: a room in which people and language models talk, call tools and work, safely."""

__version__ = "0.1.0"
