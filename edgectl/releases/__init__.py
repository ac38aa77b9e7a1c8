"""Releases on the board: `gate` judges a base, `record` keeps how far one came, `following` does what the cloud orders,
`overlay` says which base and policy are in force. See docs/releases.md."""
