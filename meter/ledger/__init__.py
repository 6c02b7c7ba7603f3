"""The ledger: accounts, postings in one chain a buyer, closed periods."""
