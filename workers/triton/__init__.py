"""Runs one tritonserver: finds it, starts it, and starts it again when it dies."""
