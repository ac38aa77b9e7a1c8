"""What this board is and what state it is in, read from a file system root that tests replace by recordings."""
