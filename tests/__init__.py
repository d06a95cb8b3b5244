"""The test suite; helper modules stand beside the tests that share them."""
