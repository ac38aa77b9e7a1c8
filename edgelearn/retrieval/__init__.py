"""Describing a pool and finding what resembles local samples in it. numpy only: a board matches without torch."""
