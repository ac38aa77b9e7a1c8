"""What state this board is in: heat, throttling, power, load, memory. One schema for all boards, `reading.Reading`.

Imports nothing but the standard library until something is asked for: training and `edgectl status` read from here.
"""
