"""Buyers and their endpoints over HTTP."""
