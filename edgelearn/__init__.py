"""The algorithms: arrays and models in, arrays and models out. No disk, no clock, no network; importing this imports
nothing."""
