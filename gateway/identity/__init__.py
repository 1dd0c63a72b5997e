"""Who is calling: four ways in, one Principal."""
