"""Invoices, statements, balances, forecasts over HTTP."""
