"""One file per question: `python -m benchmarks.NAME [--quick] [--json OUT]`. Each measures its anchor in the same
run."""
