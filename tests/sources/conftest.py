"""The problem whose rows are written to files."""

import pytest
from source_files import rows_and_weights


@pytest.fixture(scope="module")
def problem():
    """X, y and the flat weights of a model."""
    return rows_and_weights()
