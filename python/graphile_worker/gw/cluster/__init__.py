"""Commands for the databases of a cluster."""
