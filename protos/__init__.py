"""The contracts, the only source of truth for every API, and the programs that keep them so."""
