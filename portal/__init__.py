"""HTTP: the API, the buyer's pages, the operator's console.

Belongs here: what speaks HTTP. It may import every package but `baton`.
"""
