"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def rfm_data() -> Path:
    """The folder of real data sets; tests that need it skip where there is none."""
    folder = os.environ.get("RFM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RFM_DATA does not name the folder of data sets")
    return Path(folder)
