"""Products of a matrix of floats with vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.matrices import MAX_ROWWISE, matvec


@given(seed=st.integers(0, 2**32), size=st.tuples(*[st.integers(1, 70)] * 2), count=st.integers(1, MAX_ROWWISE))
def test_a_product_does_not_depend_on_how_many_others_there_are(seed: int, size: tuple[int, int], count: int) -> None:
    random = np.random.default_rng(seed)
    matrix = random.standard_normal(size).astype(np.float32)
    vectors = random.standard_normal((count, size[1])).astype(np.float32)
    alone = np.concatenate([matvec(matrix, vector[None]) for vector in vectors])
    np.testing.assert_array_equal(matvec(matrix, vectors), alone)


@pytest.mark.parametrize("count", [1, 2, MAX_ROWWISE + 1])
def test_a_flag_of_an_invalid_operation_is_not_reported(count: int) -> None:
    """OpenBLAS raises it for some finite matrices, too."""
    matrix = np.full((5, 5), np.inf, np.float32)
    assert np.isnan(matvec(matrix, np.zeros((count, 5), np.float32))).all()
