"""Programs that run in a process of their own, each alone in what it imports. Nothing here is imported by edgectl."""
