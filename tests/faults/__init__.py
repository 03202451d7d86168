"""What can go wrong, made to go wrong: a short campaign for the tests, the long one by `python -m tests.faults`."""
