"""From a base model to a personal one: match, gate, joint training, veto, and the recipes made of them, one file
each."""
