"""What is measured: each part takes a Bench, and reports its figures."""
