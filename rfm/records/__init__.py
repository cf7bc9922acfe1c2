"""Saved objects as data: descriptions, files, fingerprints."""

from rfm.records.descriptions import SavedFlowError, read_json, write_json
from rfm.records.fingerprint import architecture

__all__ = [
    "SavedFlowError",
    "architecture",
    "read_json",
    "write_json",
]
