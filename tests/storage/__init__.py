import pytest

# The conformance suites are no test modules by name; without this their asserts would tell nothing.
pytest.register_assert_rewrite("tests.storage.store_contract")
