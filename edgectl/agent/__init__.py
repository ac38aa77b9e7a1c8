"""The long-running loop of a board. Each of its works is an `edgectl` command in a process of its own, so that the loop
stays small: it imports neither arrays nor models, and what a training took goes back to the system."""
