"""The arithmetic of money: calendar, units, the weekly cycle, minutes.

Belongs here: pure functions from counts, terms and dates to units, amounts and deadlines (domain, sections 5, 6 and 9).
No SQL, no clock, no file: who asks brings the instant and the counts, and writes down what comes back. Money is integer
minor units of the contract's currency and a percentage an integer number of hundredths; there is no floating point. An
amount is rounded once, at the line, half-even.
"""
