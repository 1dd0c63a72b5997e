"""The whole of Penstock on one machine: for `penstock up`, the demo and the tests."""
