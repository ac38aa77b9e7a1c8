"""HTTP in, one call, HTTP out. No logic here."""
