"""Tests, and tools that are run as ``python -m tests.NAME``: none of them uses the cache of this user."""

import os

os.environ["JITFLOW_CACHE_DIR"] = "off"
