"""The governor of training: reads heat, throttle flags, memory and budgets, and slows, pauses, resumes or stops.

`heat` decides how much of the time may be spent training, `governor` asks it after each step and acts, `simulated` is a
board to try both on.
"""
