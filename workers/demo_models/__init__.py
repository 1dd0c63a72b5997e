"""Small real models that show and test every task: built here in seconds, from fixed seeds."""
