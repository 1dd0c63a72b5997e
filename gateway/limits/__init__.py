"""How much each caller may: requests and units a minute, calls at a time, budgets.

Whatever is limited over all gateways is leased to them in pieces (rates.py, concurrency.py,
budgets.py), so that a call is admitted without asking Redis (admission.py, tickets.py).
"""
