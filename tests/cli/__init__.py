"""Tests of the `penstock` command."""
