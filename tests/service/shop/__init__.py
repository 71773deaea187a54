"""A shop for a year: owners who buy, leave, fail to pay and dispute, processes that are killed, and a ledger that knows
nothing of the product but the agreement."""
