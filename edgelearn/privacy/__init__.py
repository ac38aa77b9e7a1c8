"""Accounting for what a query reveals."""
