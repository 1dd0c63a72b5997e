"""Penstock's client side: the SDK, the error tree and the generated stubs."""
