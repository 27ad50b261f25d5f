"""The SQL scripts: rendering them, reading them, and putting them where a server finds them."""
