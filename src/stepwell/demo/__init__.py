"""The demonstration: a city guide asks, the well answers, and the ledger tells what that saved."""
