"""A board in federated rounds: `edgectl round join` asks and sends, without torch; `edgectl round train` trains,
without a network. Each is a process of its own, and what was made is on disk before it is sent."""
