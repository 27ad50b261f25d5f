"""The contestants: how each is set up, filled and run. Importing one imports none of the others."""
