"""Functions that numba compiles. Only this folder imports numba; `native.py` calls what it has compiled."""
