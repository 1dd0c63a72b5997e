"""What every call used, written down before its answer leaves, and shipped to the control Redis."""
