"""One thin file per command: parse, call, print. Libraries that load slowly are imported where they are used."""
