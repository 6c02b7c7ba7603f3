"""The ledger: accounts, postings in one chain a buyer, settled periods."""
