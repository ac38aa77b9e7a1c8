"""Federated rounds over HTTPS. A *series* is a number of rounds of one task by one plan; boards come by themselves, the
service invites them, keeps what they send, and closes each round when all is there or its time is up.

plan -> pacing (how fast boards are) -> series (made, started, stopped) -> attendance (who is there, who is invited)
-> receiving (updates on disk before they are acknowledged) -> referee (closes rounds, one process at a time) ->
results (models of any round).
"""
