"""Tests of the agreement between board and cloud."""
